"""What an application hears of its mail, beside the tables: by feedback.py, one after the other.

webhook.py     signed requests
notices.py     mail to the return path (RFC 3464)
overdue.py     that something waits longer than it should
"""
