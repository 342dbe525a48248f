"""What the bench tells these programs, in their environment; and a mail, as the standard library sends it."""

from __future__ import annotations

import os
import smtplib
import threading
from email.mime.text import MIMEText
from email.utils import formatdate, make_msgid
from pathlib import Path

from tests.bench.content import SHOP, TEXT, recipient, subject

PORT = int(os.environ["BENCH_PORT"])
FOLDER = Path(os.environ["BENCH_FOLDER"])
COUNT = int(os.environ["BENCH_COUNT"])
TUNED = os.environ.get("BENCH_TUNED") == "1"
POSTGRES = os.environ.get("BENCH_POSTGRES", "")

_own = threading.local()


def send(number: int) -> None:
    """Over this thread's own connection, which stays open. MIMEText is the cheapest the standard library has: a
    quarter of what an EmailMessage costs.
    """
    message = MIMEText(TEXT, "plain", "us-ascii")
    message["From"], message["To"], message["Subject"] = SHOP, recipient(number), subject(number)
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(str(number), "example.com")
    if not hasattr(_own, "smtp"):
        _own.smtp = smtplib.SMTP("127.0.0.1", PORT, "bench.invalid")
    _own.smtp.sendmail(SHOP, [recipient(number)], message.as_bytes())
