"""Structured logs with secrets and documents taken out."""
