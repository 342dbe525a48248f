"""Flask with SQLAlchemy and Flask-Mail's interface: an application of its own process, over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.doors.shops import place_two_orders
from tests.running import Site

APP = """
import sys
from flask import Flask, request
from flask_mail import Message
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from werkzeug.serving import make_server
from outbox.doors.flask import OutboxMail

app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = sys.argv[1]
app.config["MAIL_DEFAULT_SENDER"] = ("The Shop", "shop@example.com")
db = SQLAlchemy(app)
mail = OutboxMail(app)

@app.post("/orders/<number>")
def order(number):
    db.session.execute(text("INSERT INTO orders VALUES (:number)"), {"number": int(number)})
    message = Message("Order " + number, ["ann@example.net"], "Thanks", bcc=[("Bo", "bo@example.net")])
    message.attach("invoice.pdf", "application/pdf", b"%PDF-")
    message.outbox = {"dedup_key": "order-" + number}
    mail.send(message)
    if "fail" in request.args:
        raise RuntimeError("the payment failed")
    db.session.commit()
    return str(message.outbox_id)

server = make_server("127.0.0.1", 0, app)
print("serves", server.port, flush=True)
server.serve_forever()
"""


def test_of_an_order_that_commits_and_one_that_rolls_back_only_the_first_is_sent(
    sqlite_site: Site, tmp_path: Path
) -> None:
    message_id, received = place_two_orders(APP, sqlite_site, tmp_path, mails=1)

    assert sqlite_site.query("SELECT id, source, dedup_key FROM outbox") == [(message_id, "flask", "order-7")]
    assert [b"Subject: Order 7" in each.content for each in received] == [True]
    assert b"bo@example.net" not in received[0].content
