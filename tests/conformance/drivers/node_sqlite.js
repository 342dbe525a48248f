// node:sqlite (Node >= 22.5). Argument: the file. Cases come on stdin, results go to stdout: see ../drivers.py.
"use strict";
const { DatabaseSync } = require("node:sqlite");
const { readFileSync } = require("node:fs");

const db = new DatabaseSync(process.argv[2]);
const words = { begin: "BEGIN IMMEDIATE", commit: "COMMIT", rollback: "ROLLBACK" };
const bound = (value) => (value !== null && typeof value === "object" ? Buffer.from(value.hex, "hex") : value);

function done(step) {
  try {
    if (typeof step === "string") {
      db.exec(words[step]);
      return { rows: [] };
    }
    const rows = db.prepare(step.run).all(...step.with.map(bound));
    return { rows: rows.map((row) => Object.values(row)) };
  } catch (error) {
    return { refused: error.message };
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map((steps) => steps.map(done))));
