// Nodemailer's smtp-server: keeps what it is given, one JSON line for each message, and says on which port it listens.
//
//     node smtp_server.js NODE_MODULES CERTIFICATE
//
// A recipient nobody@ is refused, later@ the first time deferred; a sender banned@ is refused. The login is shop,
// correct horse. STARTTLS is offered, not required.
"use strict";

const fs = require("fs");
const [modules, certificate] = process.argv.slice(2);
const { SMTPServer } = require(`${modules}/smtp-server`);
const pem = fs.readFileSync(certificate);
const deferred = new Set();

function refusal(responseCode, message) {
    return Object.assign(new Error(message), { responseCode });
}

const server = new SMTPServer({
    key: pem,
    cert: pem,
    size: 50 * 1024 * 1024,
    authOptional: true,
    disableReverseLookup: true,
    onAuth(auth, session, done) {
        const known = auth.username === "shop" && auth.password === "correct horse";
        return known ? done(null, { user: auth.username }) : done(new Error("unknown user or wrong password"));
    },
    onMailFrom(address, session, done) {
        return done(address.address.startsWith("banned@") ? refusal(550, "sender not allowed") : null);
    },
    onRcptTo(address, session, done) {
        if (address.address.startsWith("nobody@")) {
            return done(refusal(550, "no such user"));
        }
        if (address.address.startsWith("later@") && !deferred.has(address.address)) {
            deferred.add(address.address);
            return done(refusal(450, "try again later"));
        }
        return done();
    },
    onData(stream, session, done) {
        const pieces = [];
        stream.on("data", (piece) => pieces.push(piece));
        stream.on("end", () => {
            if (stream.sizeExceeded) {
                return done(refusal(552, "too big"));
            }
            const { mailFrom, rcptTo } = session.envelope;
            console.log(JSON.stringify({
                sender: mailFrom ? mailFrom.address : "",
                recipients: rcptTo.map((each) => each.address),
                content: Buffer.concat(pieces).toString("base64"),
                secure: session.secure,
                user: session.user || "",
            }));
            return done(null, "kept");
        });
    },
});

server.on("error", (error) => console.error(String(error)));
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.server.address().port })));
