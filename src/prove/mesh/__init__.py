"""The mesh: who may call whom, and Envoy told so."""
