"""`provectl verify`: experiments that prove a promise, and the audit of a shop's books."""
