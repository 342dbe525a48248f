"""Flask with SQLAlchemy and Flask-Mail's interface: an application of its own process, over HTTP."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from tests.relay import Relay
from tests.running import Program, Site, eventually

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


def post(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_of_an_order_that_commits_and_one_that_rolls_back_only_the_first_is_sent(
    sqlite_site: Site, tmp_path: Path
) -> None:
    site = sqlite_site
    site.query("CREATE TABLE orders (id integer)")
    (tmp_path / "shop.py").write_text(APP)
    with Relay() as relay, Program([sys.executable, "shop.py", site.url], tmp_path) as shop:
        site.register(relay.port)
        port = int(shop.says(r"serves (\d+)")[1])
        status, message_id = post(port, "/orders/7")
        failed, _ = post(port, "/orders/8?fail=1")
        assert (status, failed) == (200, 500)
        with site.run() as runner:
            runner.started()
            eventually(lambda: relay.messages, "the mail of order 7")
            site.until(sent=1)

        assert site.query("SELECT id FROM orders") == [(7,)]
        assert site.query("SELECT id, source, dedup_key FROM outbox") == [(int(message_id), "flask", "order-7")]
        assert [b"Subject: Order 7" in each.content for each in relay.messages] == [True]
        assert b"bo@example.net" not in relay.messages[0].content
