"""The XenAPI reference as web pages, and type stubs for Python clients: both made from the data model."""
