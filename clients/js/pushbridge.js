// pushbridge.js: one connection to a pushbridge route, whichever transport works.
//
//   import { connect } from './pushbridge.js'
//   const prices = connect('/prices/ACME', { events: ['ACME'], onEvent: e => console.log(e.event, e.data) })
//
// It tries the transports in order, reconnects with backoff and jitter, falls back to the next transport when one
// never worked here (one that did is kept: then it is the server that is away), and gives back the cursor each time, so that nothing is missed. What can't be replayed is
// announced to onGap. No dependencies; an ES module for browsers.

/**
 * Connects to a push route.
 * @param {string} url the route; relative to the page, or absolute (the route's `cors` must allow the page then)
 * @param {object} options
 *   transports: ['sse', 'websocket', 'long_poll'] in order of preference
 *   events:     names of events to hear over SSE (an EventSource hears only names it was told, and unnamed events)
 *   cursor:     where to go on from: an earlier connection's `cursor`
 *   onEvent({id, event, data, channel}): data is text; channel is unknown (undefined) over SSE
 *   onGap({channels, reason, id}):       some events of these channels are gone for good
 *   onState({state, transport, attempt, detail}): state is connecting | open | waiting | closed
 * @returns {{close(): void, use(transport: string): void, cursor: string, transport: string, state: string}}
 */
export function connect(url, options = {}) {
  const {
    events = [], onEvent = ignore, onGap = ignore, onState = ignore,
    retryMinMs = 500, retryMaxMs = 30_000, failuresBeforeFallback = 2,
  } = options
  const transports = [...(options.transports ?? Object.keys(TRANSPORTS))]
  let cursor = options.cursor ?? ''
  let at = 0
  const worked = new Set()
  let attempt = 0
  let timer
  let stop = ignore
  let state = 'closed'

  const enter = (next, detail = '') => {
    state = next
    onState({ state, transport: transports[at], attempt, detail })
  }

  function start() {
    clearTimeout(timer)
    enter('connecting')
    // Whatever a stopped transport still says is not heard, so that nothing is counted twice after a change.
    let live = true
    const end = TRANSPORTS[transports[at]](new URL(url, location.href), {
      cursor,
      events,
      opened() { if (live) { attempt = 0; worked.add(at); enter('open') } },
      seen(id) { if (live && id) cursor = id },
      event(event) { if (live) { if (event.id) cursor = event.id; onEvent(event) } },
      gap(gap) { if (live) { if (gap.id) cursor = gap.id; onGap(gap) } },
      connecting(detail) { if (live && state !== 'connecting') { attempt += 1; enter('connecting', detail) } },
      failed({ detail, afterMs, forGood }) {
        if (!live) return
        stop()
        if (forGood) return enter('closed', detail)
        attempt += 1
        if (!worked.has(at) && attempt % failuresBeforeFallback === 0) at = (at + 1) % transports.length
        enter('waiting', detail)
        timer = setTimeout(start, afterMs ?? backoff(attempt, retryMinMs, retryMaxMs))
      },
    })
    stop = () => { live = false; end() }
  }

  start()
  return {
    close() { clearTimeout(timer); stop(); enter('closed') },
    /** Goes over to another transport, from the same place. */
    use(transport) {
      if (!TRANSPORTS[transport]) throw new Error(`no transport ${transport}; there are ${Object.keys(TRANSPORTS)}`)
      stop()
      if (!transports.includes(transport)) transports.push(transport)
      at = transports.indexOf(transport)
      attempt = 0
      start()
    },
    get cursor() { return cursor },
    get transport() { return transports[at] },
    get state() { return state },
  }
}

const TRANSPORTS = { sse, websocket, long_poll: longPoll }

/** The browser's EventSource; it reconnects by itself, with the server's `retry:` and the last id. */
function sse(url, link) {
  if (!window.EventSource) return unsupported(link, 'EventSource')
  const source = new EventSource(withCursor(url, link.cursor))
  let failures = 0
  source.onopen = () => { failures = 0; link.opened() }
  source.onerror = () => {
    failures += 1
    if (source.readyState === EventSource.CLOSED || failures > 2) link.failed({ detail: 'the stream was refused or lost' })
    else link.connecting('the stream was lost')
  }
  const hear = e => link.event({ id: e.lastEventId, event: e.type === 'message' ? undefined : e.type, data: e.data })
  for (const name of new Set(['message', ...link.events])) source.addEventListener(name, hear)
  source.addEventListener('gap', e => link.gap({ ...parse(e.data), id: e.lastEventId }))
  return () => source.close()
}

/** A WebSocket with the subprotocol pushbridge.v1.json. */
function websocket(url, link) {
  if (!window.WebSocket) return unsupported(link, 'WebSocket')
  const address = withCursor(url, link.cursor)
  address.protocol = address.protocol.replace('http', 'ws')
  const socket = new WebSocket(address, ['pushbridge.v1.json'])
  let afterMs
  let heard = Date.now()
  // Proxies lose connections without a word: ask after 20 s of silence, give up after 45 s.
  const watch = setInterval(() => {
    const silent = Date.now() - heard
    if (silent > 45_000) { end(); link.failed({ detail: 'the socket fell silent' }) }
    else if (silent > 20_000 && socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}')
  }, 5_000)
  const end = () => { clearInterval(watch); socket.onclose = null; socket.close() }
  socket.onmessage = ({ data }) => {
    heard = Date.now()
    const message = parse(data)
    if (message.type === 'welcome') { link.seen(message.cursor); link.opened() }
    else if (message.type === 'event') link.event(plain(message))
    else if (message.type === 'gap') link.gap(message)
    else if (message.type === 'reconnect') { link.seen(message.cursor); afterMs = message.after_ms }
  }
  socket.onclose = ({ code, reason }) => {
    clearInterval(watch)
    link.failed({ detail: `closed: ${code} ${reason}`, afterMs, forGood: [1008, 4400, 4401, 4404].includes(code) })
  }
  return end
}

/** One fetch after the other; the answer to each says where the next goes on. */
function longPoll(url, link) {
  const abort = new AbortController()
  const poll = async () => {
    let cursor = link.cursor
    while (!abort.signal.aborted) {
      const options = { headers: { Accept: 'application/json' }, cache: 'no-store', signal: abort.signal }
      const response = await fetch(withCursor(url, cursor), options)
      if (response.status !== 200 && response.status !== 204) return refused(response)
      link.opened()
      if (response.status === 204) {
        cursor = (response.headers.get('ETag') ?? '').replace(/^W\//, '').replaceAll('"', '') || cursor
      } else {
        const answer = await response.json()
        if (answer.gap) link.gap({ ...answer.gap, id: undefined })
        for (const event of answer.events) link.event(plain(event))
        cursor = answer.next
      }
      link.seen(cursor)
    }
  }
  const refused = ({ status, headers }) => {
    const seconds = Number(headers.get('Retry-After'))
    // 406: the route has no long poll; another transport may do. 408 and 429 pass.
    const forGood = status >= 400 && status < 500 && ![406, 408, 429].includes(status)
    link.failed({ detail: `answered ${status}`, afterMs: seconds > 0 ? seconds * 1000 : undefined, forGood })
  }
  poll().catch(error => link.failed({ detail: String(error) }))
  return () => abort.abort()
}

function plain({ id, event, channel, data, data_base64 }) {
  return { id, event, channel, data: data_base64 ?? (typeof data === 'string' ? data : JSON.stringify(data)) }
}

function withCursor(url, cursor) {
  const address = new URL(url)
  if (cursor) address.searchParams.set('last_event_id', cursor)
  return address
}

/** Doubles with each attempt; the jitter keeps a thousand clients from coming back at the same moment. */
function backoff(attempt, minMs, maxMs) {
  return Math.min(maxMs, minMs * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2)
}

function unsupported(link, what) {
  setTimeout(() => link.failed({ detail: `this browser has no ${what}`, afterMs: 0 }))
  return ignore
}

function parse(text) {
  try { return JSON.parse(text) } catch { return {} }
}

function ignore() {}
