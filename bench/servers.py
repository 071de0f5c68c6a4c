"""The servers that are measured: each is started afresh for one run, on loopback and on its own CPUs, and ended after it."""

import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "bench"
LOAD = ROOT / "target" / "load" / "release" / "load"
PUSHBRIDGE = pathlib.Path(os.environ.get("PUSHBRIDGE", ROOT / "target" / "release" / "pushbridge"))
NCHAN_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
START_S = 20
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

JSON = "Content-Type: application/json"
NDJSON = "Content-Type: application/x-ndjson"
PORTS = ["http", "tls", "publish", "admin", "backend", "push", "sub", "command"]

PUSHBRIDGE_YAML_HEAD = """
listeners:
  - {{ name: http, address: "127.0.0.1:{http}" }}
  - name: tls
    address: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ cert_file: cert.pem, key_file: key.pem }}] }}
publish: {{ address: "127.0.0.1:{publish}" }}
admin: {{ address: "127.0.0.1:{admin}" }}
upstreams: {{ backend: {{ servers: ["http://127.0.0.1:{backend}"] }} }}
limits: {{ connections: {connections}, connections_per_ip: {connections}, channels: 1000000 }}
runtime: {{ workers: {workers} }}
routes:"""
PUSH_ROUTES_YAML = """
  - {{ name: proxied, match: {{ path: /kilobyte }}, proxy: {{ upstream: backend }} }}
  - name: pushed                    # the request chooses the transport
    match: {{ path: "/{{kind}}/{{channel}}" }}
    push: {{ channels: ["{{channel}}"] }}
"""

# The routes of a backend that speaks GRIP, as Pushpin has it.
GRIP_ROUTES_YAML = """
  - {{ name: bridged, match: {{ path: "/ws/{{channel}}" }}, websocket: {{ upstream: backend }} }}
  - {{ name: held, match: {{ path: /** }}, proxy: {{ upstream: backend, grip: true }} }}
"""

# More connections than files: nginx drops idle ones when under a sixteenth of them is free.
NGINX_CONF = """
{module}
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes {workers};
worker_rlimit_nofile {files};
events {{ worker_connections {slots}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{http} backlog=4096;
        listen 127.0.0.1:{tls} ssl http2 backlog=4096;
        location = /kilobyte {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        {channels}
    }}
}}
"""

NCHAN_LOCATIONS = """
        location ~ ^/(sse|ws|lp)/(?<to>.+)$ {
            nchan_subscriber eventsource websocket longpoll;
            nchan_subscriber_first_message newest;
            nchan_channel_id $to;
        }
        location ~ ^/pub/(?<to>.+)$ {
            nchan_publisher http;
            nchan_channel_id $to;
        }
"""

# message_rate=0: its default is a limit on deliveries, and any other rate sends them in batches 25 ms apart.
PUSHPIN_CONF = """
[global]
include={folder}/internal.conf
rundir={folder}/run
ipc_prefix=bench-
port_offset=0
[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{http}
https_ports=127.0.0.1:{tls}
logdir={folder}/log
log_level=1
client_buffer_size=8192
client_maxconn={connections}
condure_bin=condure
zurl_bin=zurl
[proxy]
routesfile={folder}/routes
updates_check=off
sig_key=changeme
[handler]
push_in_spec=tcp://127.0.0.1:{push}
push_in_sub_specs=tcp://127.0.0.1:{sub}
push_in_sub_connect=false
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
push_in_http_max_headers_size=10000
push_in_http_max_body_size=1000000
stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats
command_spec=tcp://127.0.0.1:{command}
message_rate=0
message_hwm=0
connection_subscription_max=20
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """One server of one run. `pid` is whose CPU time and memory count, with its children."""

    name = ""
    publish_path = "/pub/{ch}"
    publish_headers = []
    publish_bodies = {}  # by kind of session; without one, the payload is the body
    accept = None
    connect_rate = 5000
    gap_ms = 0
    needs_backend = False

    def __init__(self, cpus="0", workers=1):
        self.cpus, self.workers = cpus, workers
        self.folder = WORK / "run" / self.name
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.processes = []

    @staticmethod
    def is_there():
        return True

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            if self.needs_backend:
                self.backend()
            self.pid = self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # All are told before any is waited for: the wait may be cut short.
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own group: see spawn
                process.wait()

    def backend(self):
        self.spawn([LOAD, "backend", "--address", f"127.0.0.1:{self.ports['backend']}"], "backend", "1")
        self.wait_for("backend")

    def spawn(self, command, log, cpus):
        out = open(self.folder / f"{log}.log", "wb")
        process = subprocess.Popen(
            ["taskset", "-c", cpus, *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            cwd=self.folder, start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        return process.pid

    def wait_for(self, *names):
        for name in names:
            end = time.monotonic() + START_S
            while True:
                if self.processes[-1].poll() is not None:
                    raise RuntimeError(f"{self.name} ended at its start; see {self.folder}")
                try:
                    socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise RuntimeError(f"{self.name} does not listen; see {self.folder}")
                    time.sleep(0.05)

    def certificate(self, key, cert):
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
        subprocess.run(
            ["openssl", *command.split(), "-keyout", self.folder / key, "-out", self.folder / cert],
            check=True, capture_output=True,
        )  # fmt: skip

    def file(self, name, template, **more):
        text = template.format(folder=self.folder, workers=self.workers, files=FILES, connections=FILES - 500, **self.ports, **more)
        (self.folder / name).write_text(text)

    def publish_url(self):
        return f"http://127.0.0.1:{self.ports['publish']}{self.publish_path}"


class Echo(Server):
    """The floor: one write(2) of ready-made bytes for each subscriber."""

    name = "echo"

    def start(self):
        self.ports["publish"] = self.ports["http"]
        pid = self.spawn([LOAD, "echo", "--address", f"127.0.0.1:{self.ports['http']}"], "echo", self.cpus)
        self.wait_for("http")
        return pid


class Pushbridge(Server):
    name = "pushbridge"
    publish_path = "/v1/events"
    publish_headers = [JSON]
    event = '{"channel":"{ch}","data":"{payload}"}'
    publish_bodies = {"sse": event, "ws": event, "lp": event}
    accept = "application/json"
    needs_backend = True
    routes = PUSH_ROUTES_YAML

    @staticmethod
    def is_there():
        return PUSHBRIDGE.exists()

    def start(self):
        self.certificate("key.pem", "cert.pem")
        self.file("pushbridge.yaml", PUSHBRIDGE_YAML_HEAD + self.routes)
        pid = self.spawn([PUSHBRIDGE, "run", "--config", "pushbridge.yaml"], "pushbridge", self.cpus)
        self.wait_for("http", "tls", "publish")
        return pid


class PushbridgeNoLog(Pushbridge):
    """pushbridge without its access log, as the nginx that it is compared with."""

    name = "pushbridge-no-log"
    routes = PUSH_ROUTES_YAML + "telemetry: {{ access_log: false }}\n"


def grip_item(formats):
    return '{"items":[{"channel":"{ch}","formats":{' + formats + "}}]}"


GRIP_BODIES = {
    "sse": grip_item('"http-stream":{"content":"data: {payload}\\n\\n"}'),
    "ws": grip_item('"ws-message":{"content":"{payload}"}'),
    "lp": grip_item('"http-response":{"body":"{payload}\\n"}'),
}
# For long polls: a GRIP backend that keeps no messages has none for those between two polls.
GRIP_GAP_MS = 4000
# What Pushpin bears, and so what is asked of both: it answers 502 when pressed.
GRIP_CONNECT_RATE = 500


class PushbridgeGrip(Pushbridge):
    """pushbridge in front of the backend that Pushpin has; its backend's CPU time is not counted either."""

    name = "pushbridge-grip"
    publish_path = "/publish/"
    publish_headers = []
    publish_bodies = GRIP_BODIES
    accept = None
    connect_rate = GRIP_CONNECT_RATE
    gap_ms = GRIP_GAP_MS
    routes = GRIP_ROUTES_YAML


class Nchan(Server):
    """nginx with nchan; without the module, for proxying alone."""

    name = "nchan"
    needs_backend = True

    @staticmethod
    def is_there():
        return bool(shutil.which("nginx")) and NCHAN_MODULE.exists()

    def start(self):
        self.ports["publish"] = self.ports["http"]
        self.certificate("key.pem", "cert.pem")
        module = f"load_module {NCHAN_MODULE};"
        self.file("nginx.conf", NGINX_CONF, module=module, channels=NCHAN_LOCATIONS, slots=FILES * 5 // 4)
        pid = self.spawn(["nginx", "-p", self.folder, "-c", "nginx.conf", "-e", "error.log"], "nginx", self.cpus)
        self.wait_for("http")
        time.sleep(0.5)  # the workers
        return pid


class Nginx(Nchan):
    name = "nginx"

    @staticmethod
    def is_there():
        return bool(shutil.which("nginx"))

    def start(self):
        self.certificate("key.pem", "cert.pem")
        self.file("nginx.conf", NGINX_CONF, module="", channels="", slots=1024)
        pid = self.spawn(["nginx", "-p", self.folder, "-c", "nginx.conf", "-e", "error.log"], "nginx", self.cpus)
        self.wait_for("http")
        time.sleep(0.5)
        return pid


class Pushpin(Server):
    """Pushpin 1 with Condure; its backend's CPU time is not counted."""

    name = "pushpin"
    publish_path = "/publish/"
    publish_bodies = GRIP_BODIES
    connect_rate = GRIP_CONNECT_RATE
    gap_ms = GRIP_GAP_MS
    needs_backend = True

    @staticmethod
    def is_there():
        return bool(shutil.which("pushpin") and shutil.which("condure"))

    def start(self):
        for part in ["run", "log"]:
            (self.folder / part).mkdir()
        self.certificate(f"runner/certs/default_{self.ports['tls']}.key", f"runner/certs/default_{self.ports['tls']}.crt")
        self.file("pushpin.conf", PUSHPIN_CONF)
        internal = pathlib.Path("/usr/lib/pushpin/internal.conf").read_text()
        # A Zurl of its own, not the machine's.
        internal = internal.replace("ipc:///var/run/zurl/", "ipc://{rundir}/{ipc_prefix}")
        (self.folder / "internal.conf").write_text(internal)
        (self.folder / "routes").write_text(f"* 127.0.0.1:{self.ports['backend']},over_http\n")
        pid = self.spawn(["pushpin", "--config=pushpin.conf", "--merge-output"], "pushpin", self.cpus)
        self.wait_for("http", "publish")
        time.sleep(1)
        return pid


ALL = {server.name: server for server in [Echo, Pushbridge, PushbridgeGrip, PushbridgeNoLog, Nchan, Nginx, Pushpin]}
