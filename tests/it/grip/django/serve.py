"""Runs the project on a free port, with the server of `manage.py runserver`, and says where."""

import os
import socketserver

import django
from django.core.management import call_command
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer, get_internal_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()
call_command("migrate", verbosity=0)


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


server = Server(("127.0.0.1", 0), Handler)
server.set_app(get_internal_wsgi_application())
print("serving on %s:%d" % server.server_address, flush=True)
server.serve_forever()
