"""`umo top`: where the bytes of a running server go, now.

source.py   where readings come from: anything with read() -> Reading
scrape.py   a server's /metrics
rates.py    two readings make rates; what is kept between them
columns.py  what is shown of a model, and how wide
plain.py    one table, or JSON
app.py      the screen
"""
