"""Which messages a runner takes next, fairly, and what may be taken now.

dispatch.py    the loop: look at the lanes, share the places, claim
gate.py        what no pause, no limit and no staging mode keeps back
quota.py       the limits: what may go now, what waits until when
"""
