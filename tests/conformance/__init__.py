"""The conformance kit: what a database with Outbox's schema promises to programs in any language.

`cases/*.json` say it in no language of programming: lists of cases. A case has a `name`, `only` if it is of one
dialect, and `steps`, each of which is

- "begin", "commit" or "rollback", done as the driver likes it done; or
- a statement: `run` (text with a `?` for each parameter, or one for each dialect), `with` (its parameters: text, whole
  numbers, null, bytes as {"hex": …}), and what comes of it: `rows` (cells are text or null) or `refused` (words that
  the error says, or for each dialect some). With neither it succeeds.

Cases run in order, each step of one connection, over a database with the schema and the table `conformance_orders`
(customer). `drivers/` holds a program for each language; to add one, see drivers.py.
"""
