"""The SMTP client: rules without I/O, and a thin driver around them.

    relay.py        where a relay is, and how long to wait for it
    features.py     what it offers (EHLO)
    session.py      the state of one connection and the steps of its conversations
    opening.py      banner, EHLO, STARTTLS, EHLO, AUTH
    auth.py         AUTH: the lines around one exchange
    sasl.py         the exchanges: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, XOAUTH2, OAUTHBEARER
    transaction.py  MAIL, RCPT, DATA, the body, the dot
    dialogue.py     octets in, actions out: drives the conversations, knows nothing of sockets
    dial.py         DNS, TCP and TLS
    connection.py   asyncio around a dialogue: deadlines, back-pressure, the dot mark
    pool.py         connections kept for reuse

Whatever a relay does ends in a `Report` (`outbox.core.outcome`); nothing here raises for it.
"""
