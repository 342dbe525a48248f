// node-postgres (pg). Arguments: the folder node_modules, the URL is in PG… of the environment. See ../drivers.py.
"use strict";
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { Client } = require(join(process.argv[2], "pg"));

const bound = (value) => (value !== null && typeof value === "object" ? Buffer.from(value.hex, "hex") : value);

async function main() {
  const client = new Client();
  await client.connect();
  const done = async (step) => {
    try {
      if (typeof step === "string") {
        await client.query(step.toUpperCase());
        return { rows: [] };
      }
      let number = 0;
      const text = step.run.replace(/\?/g, () => `$${++number}`);
      const result = await client.query({ text, values: step.with.map(bound), rowMode: "array" });
      return { rows: result.rows };
    } catch (error) {
      return { refused: error.message };
    }
  };
  const results = [];
  for (const steps of JSON.parse(readFileSync(0, "utf8"))) {
    const outcomes = [];
    for (const step of steps) outcomes.push(await done(step));
    results.push(outcomes);
  }
  console.log(JSON.stringify(results));
  await client.end();
}

main();
