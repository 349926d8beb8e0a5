"""The one exception `provectl` shows to people."""


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says how. Exit code 2."""
