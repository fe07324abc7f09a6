"""The programs that blktap brings elsewhere, over our own VHD library; see README.md."""
