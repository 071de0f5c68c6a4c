"""A backend without a framework: gripcontrol and pubcontrol alone, on the HTTP server of Python, on a free port."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gripcontrol import Channel, GripPubControl, HttpResponseFormat, HttpStreamFormat, Response, WebSocketEvent
from gripcontrol import WebSocketMessageFormat, create_grip_channel_header, create_hold_response, create_hold_stream
from gripcontrol import decode_websocket_events, encode_websocket_events, parse_grip_uri, validate_sig
from gripcontrol import websocket_control_message
from pubcontrol import Item

pub = GripPubControl(parse_grip_uri(os.environ["GRIP_URL"]))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, fields, body):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        signature = self.headers.get("Grip-Sig", "")
        if not validate_sig(signature, "changeme", "edge"):
            return self.answer(501, [], b"not through the proxy")
        instruct = [("Content-Type", "application/grip-instruct")]
        text = Response(headers={"Content-Type": "text/plain", "X-Own": "1"}, body="nothing yet\n")
        if self.path == "/poll":
            hold = create_hold_response(Channel("polls", "7"), text, timeout=20)
            return self.answer(200, instruct, hold.encode())
        if self.path == "/stream":
            start = Response(headers={"Content-Type": "text/plain"}, body="begin\n")
            return self.answer(200, instruct, create_hold_stream(["lines", "more"], start).encode())
        lines = Channel("lines")
        lines.filters.append("skip-self")
        channels = create_grip_channel_header([lines, Channel("more")])
        fields = [("Grip-Hold", "stream"), ("Grip-Channel", channels), ("Content-Type", "text/plain")]
        return self.answer(200, fields, b"by fields\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Type") == "application/websocket-events":
            return self.chat(decode_websocket_events(body))
        text = body.decode()
        if self.path == "/say/response":
            response = HttpResponseFormat(code=201, headers={"X-More": "2"}, body=text)
            pub.publish_http_response("polls", response, id="8", prev_id="7", blocking=True)
        elif self.path == "/say/stream":
            pub.publish_http_stream("lines", text + "\n", blocking=True)
            pub.publish("more", Item(HttpStreamFormat(text.encode() + b"!\n")), blocking=True)
        elif self.path == "/close":
            pub.publish_http_stream("lines", HttpStreamFormat(close=True), blocking=True)
        else:
            pub.publish("room", Item(WebSocketMessageFormat(text)), blocking=True)
        self.answer(200, [], b"")

    def chat(self, events):
        out = []
        for event in events:
            if event.type == "OPEN":
                out.append(WebSocketEvent("OPEN"))
                out.append(WebSocketEvent("TEXT", "c:" + websocket_control_message("subscribe", {"channel": "room"})))
            elif event.type in ("TEXT", "BINARY"):
                out.append(WebSocketEvent(event.type, b"m:" + event.content))
            elif event.type == "CLOSE":
                out.append(WebSocketEvent("CLOSE", event.content))
        fields = [("Content-Type", "application/websocket-events"), ("Sec-WebSocket-Extensions", "grip")]
        self.answer(200, fields, encode_websocket_events(out))


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print("serving on %s:%d" % server.server_address, flush=True)
server.serve_forever()
