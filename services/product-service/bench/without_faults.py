"""The product service without its fault middleware, to compare the shipped one with.

`python bench/without_faults.py` serves the same app in the same gunicorn, but no request is looked
at for faults, and no thread follows the leases file.
"""

from product_service import app
from service_kit import burden, wsgi

if __name__ == "__main__":
    setattr(wsgi, "_injector", lambda _leases, _facts: lambda _environ: None)  # noqa: B010
    setattr(burden.Burdens, "start", lambda _burdens: None)  # noqa: B010
    app.main()
