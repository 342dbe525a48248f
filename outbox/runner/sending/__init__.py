"""One message, from its claim to what is to be settled. The heart is delivery.py.

delivery.py        its steps, one after the other; journey.py, what has come of them so far
carriers.py        a task for each place of an account, that takes one message after the other
screen.py          who of its recipients is not tried; signing.py, its DKIM signature
conversation.py    the part that the relay takes part in, with the dot mark
login.py           connections, and tokens.py for them
brakes.py          refusals alike, met in a row
"""
