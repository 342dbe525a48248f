"""Arithmetic: what a mail is, what a reply means, what becomes of a message.

No I/O, no clock, no chance, and nothing but the standard library: everything here is a function of its arguments, so
it is tested with tables and properties, and read without thinking of databases or sockets.
"""
