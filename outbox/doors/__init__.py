"""The ways in which mail comes to us, beside `enqueue` and plain SQL.

Each writes ordinary rows, and names itself in the column `source`.
"""
