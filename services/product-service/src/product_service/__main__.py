"""`python -m product_service` is `product-service`."""

from product_service.app import main

main()
