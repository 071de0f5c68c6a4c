"""Views: an event stream, a held response, a held stream and a chat over WebSockets."""

import json

import django_eventstream
from django.http import HttpResponse
from django.urls import include, path
from django_grip import publish, set_hold_longpoll, set_hold_stream, websocket_only
from gripcontrol import HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat


def send(request):
    """Sends an event to the event stream's channel; whether it is published at once."""
    django_eventstream.send_event("test", request.GET["type"], request.body.decode(), async_publish=False)
    return HttpResponse("sent")


def store(request):
    """Stores an event that the proxy does not hear of, as if a publish were lost."""
    from django_eventstream.storage import DjangoModelStorage

    DjangoModelStorage().append_event("test", "message", json.dumps(request.body.decode()))
    return HttpResponse("stored")


def poll(request):
    set_hold_longpoll(request, "polls", timeout=20)
    return HttpResponse("nothing yet\n", content_type="text/plain")


def lines(request):
    set_hold_stream(request, "lines", keep_alive_data="\n", keep_alive_timeout=20)
    return HttpResponse("begin\n", content_type="text/plain")


def say(request):
    """Publishes the body to held responses and streams."""
    text = request.body.decode()
    publish(request.GET["channel"], [HttpResponseFormat(body=text), HttpStreamFormat(text + "\n")], blocking=True)
    return HttpResponse("published")


@websocket_only
def chat(request):
    ws = request.wscontext
    if ws.is_opening():
        ws.accept()
        ws.subscribe("room")
        ws.meta["name"] = request.GET["name"]
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close()
            break
        said = "%s: %s" % (ws.meta["name"], message)
        publish("room", WebSocketMessageFormat(said), blocking=True)


urlpatterns = [
    path("events/", include(django_eventstream.urls), {"channels": ["test"]}),
    path("send/", send),
    path("store/", store),
    path("poll/", poll),
    path("lines/", lines),
    path("say/", say),
    path("chat/", chat),
]
