// An event handler as its library's documentation has it: who connects, what is said, and who is gone.
// Each line of output is JSON: first the port, then what the handler was told.

const { WebPubSubEventHandler } = require("@azure/web-pubsub-express");
const express = require("express");

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const handler = new WebPubSubEventHandler("chat", {
  allowedEndpoints: ["https://push.example", "https://other.example"],
  handleConnect: (req, res) => {
    const user = req.queries.user?.[0];
    if (!user) {
      res.fail(401, "who are you?");
      return;
    }
    res.setState("said", 0);
    res.success({ userId: user, groups: ["room"], subprotocol: req.subprotocols[0] });
  },
  onConnected: (req) => tell({ connected: req.context.userId }),
  handleUserEvent: (req, res) => {
    const said = req.context.states.said + 1;
    res.setState("said", said);
    if (req.dataType === "binary") {
      res.success(Buffer.from(req.data).reverse(), "binary");
    } else if (req.data === "json") {
      res.success(JSON.stringify({ user: req.context.userId, said }), "json");
    } else if (req.data === "nothing") {
      res.success();
    } else if (req.data === "fail") {
      res.fail(500, "no");
    } else {
      res.success(`${req.context.userId} said ${req.data} (${said})`, "text");
    }
  },
  onDisconnected: (req) =>
    tell({ disconnected: req.context.userId, reason: req.reason, said: req.context.states.said }),
});

const app = express();
app.use(handler.getMiddleware());
const server = app.listen(0, "127.0.0.1", () => tell({ port: server.address().port }));
