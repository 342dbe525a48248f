"""OAuth 2.0 for accounts: how the access token is got that an account logs in with (XOAUTH2, OAUTHBEARER).

    setup.py      Setup: the grant, the endpoints, the client, or a command; what is sealed for an account; presets
    granted.py    Granted: an access token and its life; `obtain`, by whichever grant the setup names
    endpoint.py   the token endpoint, asked over HTTPS; the only module that knows Authlib and httpx2
    answer.py     what its answers mean: tokens, errors that pass and errors that do not
    command.py    a command that prints a token
    device.py     a person's consent, given on another device (`outbox account login`)

Nothing here touches the database, and nothing decides when: that is `outbox.runner.sending.tokens`. Authlib and httpx2
come with the extra ``mail-outbox[oauth2]`` and are imported when the first request is made; a command needs neither.

STANDARDS: RFC 6749 (client credentials, refresh token), RFC 8628 (device authorization), RFC 6750 (bearer tokens).
"""
