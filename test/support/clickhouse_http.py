"""ClickHouse's HTTP interface, as much of it as the recipe asks for, in front
of the real engine that chdb carries: clickhouse_http.py <folder> <port>."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

from chdb import session

engine = session.Session(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    # One connection at a time, so each ends with its answer.
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        self.answer(200, b"Ok.\n")

    def do_POST(self):
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size).decode()
        parameters = parse_qs(urlparse(self.path).query)
        query = parameters.pop("query")[0]
        try:
            for name, values in parameters.items():
                engine.query(f"SET {name} = '{values[0]}'")
            text = f"{query}\n{body}" if body else query
            # Over HTTP the usual format is this one.
            self.answer(200, engine.query(text, "TabSeparated").bytes() or b"")
        except Exception as error:
            self.answer(500, str(error).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
