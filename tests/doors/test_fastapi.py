"""FastAPI with asyncpg, and FastAPI-Mail's messages: an application of its own process, over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.doors.shops import place_two_orders
from tests.running import Site

APP = """
import asyncio
import socket
import sys
from contextlib import asynccontextmanager
import asyncpg
import uvicorn
from fastapi import Depends, FastAPI
from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType
from outbox import Mail, aenqueue
from outbox.doors.fastapi import enqueue_fastmail

@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(sys.argv[1], min_size=1) as app.state.pool:
        yield

app = FastAPI(lifespan=lifespan)
config = ConnectionConfig(
    MAIL_USERNAME="", MAIL_PASSWORD="", MAIL_FROM="shop@example.com", MAIL_PORT=25, MAIL_SERVER="unused.example.com",
    MAIL_STARTTLS=True, MAIL_SSL_TLS=False,
)

async def transaction():
    async with app.state.pool.acquire() as connection, connection.transaction():
        yield connection

@app.post("/orders/{number}")
async def order(number: int, fail: bool = False, connection=Depends(transaction, scope="function")):
    await connection.execute("INSERT INTO orders VALUES ($1)", number)
    mail = Mail(sender="shop@example.com", to="ann@example.net", subject=f"Order {number}", text="Thanks")
    message_id = await aenqueue(connection, mail, source="shop")
    message = MessageSchema(
        recipients=["ann@example.net"], bcc=["bo@example.net"], subject=f"Invoice {number}", body="<p>Pay</p>",
        subtype=MessageType.html,
    )
    await enqueue_fastmail(connection, FastMail(config), message, dedup_key=f"invoice-{number}")
    if fail:
        raise RuntimeError("the payment failed")
    return message_id

listener = socket.create_server(("127.0.0.1", 0))
print("serves", listener.getsockname()[1], flush=True)
asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="error")).serve([listener]))
"""


def test_of_an_order_that_commits_and_one_that_rolls_back_only_the_first_is_sent(
    postgres_site: Site, tmp_path: Path
) -> None:
    site = postgres_site
    message_id, received = place_two_orders(APP, site, tmp_path, mails=2)

    assert site.query("SELECT source, dedup_key FROM outbox ORDER BY id") == [
        ("shop", None),
        ("fastapi", "invoice-7"),
    ]
    assert site.query("SELECT min(id) FROM outbox") == [(message_id,)]
    assert sum(b"Invoice 7" in each.content for each in received) >= 1
    assert not any(b"bo@example.net" in each.content for each in received)
