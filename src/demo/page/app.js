// The trading desk: prices over any transport (pushbridge.js), orders over a WebSocket, no framework.
import { connect } from '/pushbridge.js'

const PAST_MAX = 60
const TAPE_MAX = 60
const MANY_STEP = 20
const MANY_MAX = 60
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches
const at = name => document.querySelector(`[data-testid="${name}"]`)
const show = (name, text) => { const node = at(name); if (node.textContent !== text) node.textContent = text }
const money = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
const whole = new Intl.NumberFormat('en')

// ── prices ──────────────────────────────────────────────────────────────────────────────────────────────────────
const stocks = new Map()
const count = { events: 0, missed: 0, gaps: 0, reconnects: 0, second: 0 }
let selected = ''
let prices

function addStock({ symbol, name, price, change, past }) {
  const card = document.getElementById('card').content.cloneNode(true).firstElementChild
  const part = name => card.querySelector(`.${name}`)
  card.dataset.testid = `card-${symbol}`
  part('symbol').textContent = symbol
  part('name').textContent = name
  part('price').dataset.testid = `price-${symbol}`
  card.addEventListener('click', () => select(symbol))
  at('prices').append(card)
  at('order-symbol').add(new Option(`${symbol} · ${name}`, symbol))
  const nodes = { card, price: part('price'), change: part('change'), line: part('line'), area: part('area') }
  const stock = { symbol, name, price, change, past, sequence: 0, nodes }
  stocks.set(symbol, stock)
  draw(stock)
}

function draw({ symbol, name, price, change, past, nodes }) {
  const sign = change >= 0 ? '+' : '−'
  nodes.card.dataset.trend = change >= 0 ? 'up' : 'down'
  nodes.price.textContent = money.format(price)
  nodes.change.textContent = `${sign}${money.format(Math.abs(change))}%`
  nodes.card.setAttribute('aria-label', `${symbol}, ${name}, ${money.format(price)}, ${sign}${Math.abs(change)} percent`)
  const line = path(past, 30, 2)
  nodes.line.setAttribute('d', line)
  nodes.area.setAttribute('d', `${line}L100 32L0 32Z`)
}

/** A line through values, from y `bottom` for the least to `top` for the greatest. */
function path(values, bottom, top) {
  const least = Math.min(...values)
  const range = Math.max(...values) - least || 1
  const x = i => (100 * i / (values.length - 1)).toFixed(2)
  const y = value => (bottom - (value - least) / range * (bottom - top)).toFixed(2)
  return values.map((value, i) => `${i ? 'L' : 'M'}${x(i)} ${y(value)}`).join('')
}

function flash(node, up) {
  if (calm) return
  const colour = up ? '47 208 140' : '255 100 115'
  node.animate([{ backgroundColor: `rgb(${colour} / .38)` }, { backgroundColor: `rgb(${colour} / 0)` }], 700)
}

function hear({ data }) {
  const news = parse(data)
  const stock = stocks.get(news.symbol)
  if (!stock || !Number.isFinite(news.price) || !Number.isFinite(news.change)) return
  count.events += 1
  count.second += 1
  // The backend numbers each stock's prices: a hole is a lost event, a number twice is a doubled one. Anybody may
  // publish a price by curl; such a price has no number.
  if (Number.isInteger(news.sequence)) {
    if (stock.sequence && news.sequence !== stock.sequence + 1) count.missed += Math.abs(news.sequence - stock.sequence - 1)
    stock.sequence = news.sequence
  }
  if (news.price !== stock.price) flash(stock.nodes.price, news.price > stock.price)
  Object.assign(stock, { price: news.price, change: news.change })
  stock.past.push(news.price)
  if (stock.past.length > PAST_MAX) stock.past.shift()
  draw(stock)
  if (stock.symbol === selected) estimate()
}

/** Anybody may publish on this channel by curl: what is no price is passed over. */
function parse(text) {
  try { return JSON.parse(text) ?? {} } catch { return {} }
}

function select(symbol) {
  selected = symbol
  at('order-symbol').value = symbol
  for (const stock of stocks.values()) stock.nodes.card.setAttribute('aria-pressed', stock.symbol === symbol)
  estimate()
}

// ── the connection panel ────────────────────────────────────────────────────────────────────────────────────────
const NAMES = { sse: 'EventSource', websocket: 'WebSocket', long_poll: 'Long poll' }
const PROTOCOLS = { 'h2': 'HTTP/2', 'http/1.1': 'HTTP/1.1', 'h3': 'HTTP/3' }
let wasOpen = false

function onState({ state, transport, detail }) {
  const pill = at('state')
  pill.dataset.state = state
  pill.lastElementChild.textContent = state === 'open' ? 'live' : state
  pill.title = detail
  if (state === 'open') {
    wasOpen = true
  } else if (wasOpen && detail) {
    wasOpen = false
    count.reconnects += 1
  }
  at('transport').dataset.transport = transport
  show('transport', NAMES[transport])
  const radio = at(`use-${transport}`)
  if (!radio.checked) radio.checked = true
}

function showCounts() {
  for (const name of ['events', 'missed', 'gaps', 'reconnects']) show(name, whole.format(count[name]))
  for (const name of ['missed', 'gaps']) at(name).dataset.bad = count[name] > 0
  const cursor = prices?.cursor || '–'
  show('cursor', cursor)
  at('cursor').title = cursor
}

const rates = Array(40).fill(0)
function everySecond() {
  rates.push(count.second)
  rates.shift()
  show('rate', String(count.second))
  count.second = 0
  document.querySelector('.pulse path').setAttribute('d', path(rates, 22, 2))
  const [page] = performance.getEntriesByType('navigation')
  const protocol = page?.nextHopProtocol ?? ''
  at('protocol').dataset.protocol = protocol
  show('protocol', PROTOCOLS[protocol] ?? (protocol || '–'))
}

for (const radio of document.querySelectorAll('[name="transport"]')) {
  radio.addEventListener('change', () => {
    wasOpen = false
    prices?.use(radio.value)
  })
}

// ── orders ──────────────────────────────────────────────────────────────────────────────────────────────────────
const ticket = document.getElementById('ticket')
const mine = new Set()
const waiting = new Map()
let orders
let tries = 0

function openOrders() {
  orders = new WebSocket(new URL('/orders', location.href.replace(/^http/, 'ws')))
  const state = name => { at('orders-state').dataset.state = name }
  state('connecting')
  orders.onopen = () => { tries = 0; state('open') }
  orders.onclose = () => {
    state('closed')
    tries += 1
    setTimeout(openOrders, Math.min(15_000, 500 * 2 ** tries) * (0.5 + Math.random() / 2))
  }
  orders.onmessage = ({ data }) => {
    const message = parse(data)
    if (message.type === 'trade') addTrade(message)
    else answer(message)
  }
}

function answer(message) {
  const node = at('confirmation')
  node.dataset.kind = message.type
  if (message.type === 'confirmation') {
    const done = message.side === 'buy' ? 'Bought' : 'Sold'
    node.dataset.id = message.id
    node.textContent = `${done} ${whole.format(message.quantity)} ${message.symbol} at ${money.format(message.filled_price)} (${message.id})`
    mine.add(message.id)
    // The trade may have come on the tape before its confirmation.
    if (waiting.has(message.id)) own(waiting.get(message.id))
  } else {
    node.textContent = message.reason ?? 'The order was not understood.'
  }
}

function addTrade({ id, time, symbol, side, quantity, filled_price, trader }) {
  const row = document.createElement('tr')
  const cell = (text, kind) => {
    const node = row.insertCell()
    node.textContent = text
    if (kind) node.className = kind
    return node
  }
  row.dataset.id = id
  cell(new Date(time).toLocaleTimeString('en', { hour12: false }))
  cell(symbol)
  cell(side).dataset.side = side
  cell(whole.format(quantity), 'number')
  cell(money.format(filled_price), 'number')
  cell(trader === 'market' ? 'market' : 'a tab')
  at('tape').prepend(row)
  waiting.set(id, row)
  if (mine.has(id)) own(row)
  while (at('tape').rows.length > TAPE_MAX) {
    const last = at('tape').rows[TAPE_MAX]
    waiting.delete(last.dataset.id)
    mine.delete(last.dataset.id)
    last.remove()
  }
}

function own(row) {
  row.dataset.mine = true
  row.lastElementChild.textContent = 'you'
}

function estimate() {
  const shares = ticket.quantity.valueAsNumber
  const price = stocks.get(ticket.symbol.value)?.price
  show('estimate', shares > 0 && price ? `$${money.format(shares * price)}` : '–')
}

ticket.addEventListener('input', () => select(ticket.symbol.value))
ticket.addEventListener('submit', event => {
  event.preventDefault()
  const order = { side: ticket.side.value, symbol: ticket.symbol.value, quantity: ticket.quantity.valueAsNumber }
  if (orders.readyState === WebSocket.OPEN) orders.send(JSON.stringify(order))
  else answer({ type: 'rejected', reason: 'The order line is down; it is being opened again.' })
})

// ── many tabs ───────────────────────────────────────────────────────────────────────────────────────────────────
const many = []

function openMany() {
  const symbols = [...stocks.keys()]
  const wanted = Math.min(MANY_MAX, many.length + MANY_STEP)
  while (many.length < wanted) {
    const symbol = symbols[many.length % symbols.length]
    const tile = document.createElement('div')
    tile.className = 'tile'
    tile.innerHTML = '<b></b><i></i><span>…</span>'
    tile.firstElementChild.textContent = symbol
    at('tiles').append(tile)
    const source = new EventSource(`/prices/${symbol}`)
    source.addEventListener(symbol, ({ data }) => {
      const { price } = parse(data)
      if (!Number.isFinite(price)) return
      const node = tile.lastElementChild
      const before = Number(node.dataset.price ?? price)
      node.dataset.price = price
      node.textContent = money.format(price)
      tile.dataset.live = true
      if (price !== before) flash(node, price > before)
      showMany()
    })
    source.onerror = () => { tile.dataset.live = false; showMany() }
    many.push({ source, tile })
  }
  showMany()
}

function closeMany() {
  for (const { source, tile } of many.splice(0)) { source.close(); tile.remove() }
  showMany()
}

function showMany() {
  show('many-open', String(many.length))
  show('many-live', String(many.filter(({ tile }) => tile.dataset.live === 'true').length))
  at('close-many').disabled = !many.length
  at('open-many').disabled = many.length >= MANY_MAX
  at('open-many').textContent = many.length ? `Open ${MANY_STEP} more` : `Open ${MANY_STEP} streams`
}

at('open-many').addEventListener('click', openMany)
at('close-many').addEventListener('click', closeMany)

// ── start ───────────────────────────────────────────────────────────────────────────────────────────────────────
const market = await (await fetch('/market')).json()
market.stocks.forEach(addStock)
at('prices').setAttribute('aria-busy', 'false')
select(market.stocks[0].symbol)
prices = connect('/prices', {
  transports: ['sse', 'websocket', 'long_poll'],
  events: market.stocks.map(({ symbol }) => symbol),
  onEvent: hear,
  onGap: () => { count.gaps += 1 },
  onState,
})
openOrders()
everySecond()
setInterval(everySecond, 1000)
setInterval(showCounts, 250)
