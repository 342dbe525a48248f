"""The stories of the crash matrix, and the points at which a runner dies in each.

A story is a few mails, a relay, and what has happened before. Which points there are is not chosen here:
`tests/torture/test_points.py` reads them out of the code (the verbs of `Store`, whoever calls `Clerk.upkeep`, the
stages of the dialogue) and finds each of them in a story.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from outbox.clock import Clock
from outbox.core.limits import Limit, Limited
from outbox.store import accounts, limits
from outbox.store.journal import Act
from outbox.store.rows import moment
from tests.relay import EXTENSIONS, Relay
from tests.running import Site
from tests.torture.watched import SIDES

Mails = tuple[Mapping[str, Any], ...]
Point = tuple[str, int]
"""Its name, and which time it is passed."""

ANN = {"recipients": "ann@example.net"}
TWO: Mails = (ANN, {"recipients": "bob@example.net"})


def sides(*names: str, turn: int = 1) -> tuple[Point, ...]:
    """Of transactions: after BEGIN, before COMMIT, after COMMIT."""
    return tuple((f"{name}.{side}", turn) for name in names for side in SIDES)


def around(*names: str, turn: int = 1) -> tuple[Point, ...]:
    """Before and after something."""
    return tuple((f"{name}.{side}", turn) for name in names for side in ("before", "after"))


def once(*names: str, turn: int = 1) -> tuple[Point, ...]:
    return tuple((name, turn) for name in names)


def said(*stages: str, turn: int = 1) -> tuple[Point, ...]:
    """Before and after it is said, and when the answer is there."""
    return (*around(*(f"say.{each}" for each in stages), turn=turn), *once(*(f"heard.{each}" for each in stages)))


@dataclass(frozen=True)
class Story:
    """`died`: a runner before this one was killed at this point; `died_deaf`: it ended instead, and left its results in
    the rescue file. `options`: see `watched`. `stops`: it gets two SIGTERMs when the relay has accepted. `tls`: with
    STARTTLS, and a "login" or "opportunistic". `each_policy`: false where no message is under way at its points, so
    that one life does for both policies. `ends`: by itself. `only`: on this kind of database.
    `alone`: everybody needs the row that it writes, and waits for it when it stands still in the middle of that.
    """

    name: str
    points: tuple[Point, ...]
    mails: Mails = TWO
    script: Mapping[str, Any] = field(default_factory=dict)
    extensions: tuple[str, ...] = EXTENSIONS
    settings: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Site], None] = lambda site: None
    afterwards: Callable[[Site], None] = lambda site: None
    died: str = ""
    died_deaf: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    tls: str = ""
    stops: bool = False
    ends: bool = True
    each_policy: bool = True
    only: str = ""
    alone: bool = False


def _act() -> Act:
    return Act("test", Clock().now())


def _pause(site: Site) -> None:
    with site.db.atomic():
        accounts.pause_account(site.db, "main", "a pause", None, _act())
    long_ago = moment(Clock().now() - timedelta(hours=1))
    site.query("UPDATE outbox_delivery SET due_at = ?", long_ago)


def _resume(site: Site) -> None:
    with site.db.atomic():
        accounts.resume_account(site.db, "main", _act())


def _limit(site: Site) -> None:
    with site.db.atomic():
        limits.set_limit(site.db, Limit(Limited.ACCOUNT, "main", per_hour=1000), _act())


def _fail_once(site: Site) -> None:
    site.query("UPDATE outbox_account SET breaker_failures = 1, breaker_reason = 'it was away'")


def _overdue(site: Site) -> None:
    """Nobody will send it in time."""
    site.query(
        "UPDATE outbox_delivery SET expires_at = '2020-01-01T00:00:00.000Z', due_at = '2099-01-01T00:00:00.000Z'"
    )


DUTIES = ("upkeep.register", "upkeep.renew", "upkeep.leave", "runners.forget", "upkeep.forget_usage")
ONE_BY_ONE = tuple(each for each in EXTENSIONS if each != "PIPELINING")

STORIES = (
    Story(
        "duties",
        sides(*DUTIES)
        + around("presence.take", "presence.release", "rescue.take", "rescue.discard")
        + once("rescue.save.before", "rescue.save.after"),
        each_policy=False,
    ),
    Story("asleep", sides("service.announce"), each_policy=False, only="postgres"),
    Story(
        "sending",
        sides("claim", "mark", "settle") + once("connected", "heard.banner") + said("ehlo", "mail", "dot", "quit"),
    ),
    Story("one by one", said("mail", "rcpt", "data"), mails=(ANN,), extensions=ONE_BY_ONE),
    Story(
        "a large body",
        around("say.body", "say.body") + around("say.body", turn=2) + sides("mark") + said("dot"),
        mails=({**ANN, "text_body": "Thanks for your order.\n" * 5000},),
    ),
    Story(
        "in parts",
        sides("mark", turn=2) + around("say.dot", turn=2) + (("heard.dot", 2), *sides("settle")),
        mails=({"recipients": "ann@example.net, bob@example.net, cem@example.net"},),
        settings={"run_recipients_per_transaction": "2"},
    ),
    Story(
        "once more",
        sides("settle") + sides("claim", "mark", "settle", turn=2) + said("rset"),
        mails=(ANN,),
        script={"dot": ["451 4.3.0 later", None]},
    ),
    Story("refused", sides("settle"), mails=(ANN,), script={"rcpt:ann@example.net": "550 5.1.1 no such user"}),
    Story("taking back", sides("upkeep.bury", "reclaim", "claim_one"), died="claim.committed"),
    Story("in doubt", sides("upkeep.bury", "reclaim"), died="say.dot.after"),
    Story("an unheard COMMIT", sides("reclaim_stray"), options={"lose": "claim"}),
    Story("too late", sides("expire"), prepare=_overdue, each_policy=False),
    Story(
        "delayed",
        sides("tell_delayed"),
        prepare=_pause,
        afterwards=_resume,
        settings={"events_delayed_after": "1s"},
        ends=False,
    ),
    Story(
        "rescuing",
        around("rescue.save", "presence.release"),
        mails=(ANN,),
        options={"deaf": "heard.dot"},
        stops=True,
        ends=False,
    ),
    Story(
        "rescued",
        around("rescue.take", "rescue.discard") + sides("settle", "service.replay"),
        mails=(ANN,),
        died="heard.dot",
        died_deaf=True,
        alone=True,
    ),
    Story("rated", sides("quota.exchange"), prepare=_limit, alone=True),
    Story("recovered", sides("registrar.recover"), mails=(ANN,), prepare=_fail_once, alone=True),
    Story("signed in", said("starttls", "auth") + around("say.ehlo", turn=2), mails=(ANN,), tls="login"),
    Story("tried in clear", sides("login.remember"), mails=(ANN,), tls="opportunistic", alone=True),
)

SAME = {
    "upkeep.reclaim": "reclaim",
    "upkeep.expire": "expire",
    "upkeep.take_back": "reclaim_stray",
    "overdue.tell": "tell_delayed",
}
"""What goes through `Clerk.upkeep` and is nothing but a verb of `Store`: one transaction."""

ELSEWHERE = {
    "feedback.forget": "deletes events that are a month old",
    "pickups.write": "takes mail in, and sends none: an INSERT like any application's",
    "notices.take": "tests/runner/test_notices.py",
    "notices.file": "tests/runner/test_notices.py",
    "notices.heard": "tests/runner/test_notices.py",
    "webhook.next": "tests/crash/test_events.py kills a runner while it posts",
    "webhook.heard": "tests/crash/test_events.py kills a runner while it posts",
    "tokens.lease": "tests/oauth: nothing of a message is written",
    "tokens.release": "tests/oauth: nothing of a message is written",
    "tokens.write": "tests/oauth: nothing of a message is written",
}
"""What goes through `Clerk.upkeep` and changes no message, no claim and no runner."""


@dataclass(frozen=True)
class Cell:
    """One life that ends, or is interrupted: where, how, with what policy (empty: one message of each)."""

    kind: str
    story: Story
    point: Point
    act: str
    policy: str

    def __str__(self) -> str:
        name, turn = self.point
        place = f"{name} (turn {turn})" if turn > 1 else name
        return f"{self.kind}, {self.story.name}: {self.act} at {place}, {self.policy or 'retry and hold'}"

    @property
    def policies(self) -> tuple[str, ...]:
        return (self.policy,) if self.policy else ("retry", "hold")


def cells(kind: str, act: str) -> list[Cell]:
    """Of one kind of database and one way to die."""
    return [
        Cell(kind, story, point, act, policy)
        for story in STORIES
        if story.only in ("", kind)
        for point in dict.fromkeys(story.points)
        for policy in (("retry", "hold") if story.each_policy else ("",))
    ]


def relay_of(story: Story, **secure: Any) -> Relay:
    return Relay(story.script, extensions=story.extensions, **secure)
