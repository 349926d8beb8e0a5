"""`python -m payment_service` is `payment-service`."""

from payment_service.app import main

main()
