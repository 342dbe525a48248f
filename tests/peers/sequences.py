"""What a careless program takes for the end of a message, and the second message that is smuggled in behind it
(CVE-2023-51764, -51765, -51766; VU#302671).

Every line end, and every mistake for one, before and after a run of dots: among them ``\\n.\\n``, ``\\r.\\r``,
``\\r\\n.\\n``, ``\\n.\\r\\n``, ``\\r\\n\\0.\\r\\n`` and ``\\r\\r\\n.\\r\\n``.
"""

from __future__ import annotations

from itertools import product

LINE_ENDS = ("\n", "\r", "\r\n", "\r\r\n", "\n\r", "\r\n\0", "\r\0\n", "\0\n")
DOTS = (".", "..", "...")
SEQUENCES = tuple("".join(each) for each in product(LINE_ENDS, DOTS, LINE_ENDS))

SMUGGLER = "smuggled@example.com"
VICTIM = "victim@example.net"
SMUGGLED = (
    f"MAIL FROM:<{SMUGGLER}>\r\nRCPT TO:<{VICTIM}>\r\nDATA\r\n"
    f"From: {SMUGGLER}\r\nTo: {VICTIM}\r\nSubject: smuggled\r\n\r\nNobody sent this.\r\n.\r\n"
)
