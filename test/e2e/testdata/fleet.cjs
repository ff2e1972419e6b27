// A fleet of devices, each an MQTT.js client. It is started with its orders as JSON in the environment variable FLEET:
//
//   url, devices: [{id, user, password, version}], messages, cut
//
// Each device subscribes to down/ID/# and publishes so many messages of QoS 1 and of QoS 2 to up/ID/1 and up/ID/2. After every
// so many (cut) it loses its connection, and MQTT.js comes back by itself. When a device has published everything and got as
// many messages as it sent it leaves. Then the fleet says as one line of JSON for each device what has happened to it. On
// SIGTERM it says so of those that have not left, and gives up.
'use strict'
const mqtt = require('mqtt')

const orders = JSON.parse(process.env.FLEET)
const window = 8 // messages published at once
const unfinished = new Map() // reports, by id

function device ({ id, user, password, version }) {
  const report = { id, errors: [], connects: 0, published: 0, received: [] }
  unfinished.set(id, report)
  const seen = new Set()
  let next = 0
  const client = mqtt.connect(orders.url, {
    clientId: id,
    username: user,
    password,
    protocolVersion: version,
    protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
    clean: false,
    properties: version === 5 ? { sessionExpiryInterval: 3600, receiveMaximum: 10, userProperties: { a: 'b' } } : undefined,
    reconnectPeriod: 50,
    connectTimeout: 20000,
    keepalive: 5
  })

  // What only MQTT 5 has is not carried to the cloud, and must do no harm.
  const properties = version !== 5
    ? {}
    : {
        payloadFormatIndicator: false,
        messageExpiryInterval: 3600,
        contentType: 'text/plain',
        responseTopic: 'answers/' + id,
        correlationData: Buffer.from('correlation'),
        userProperties: { one: '1', two: ['2', '3'] }
      }

  return new Promise((resolve) => {
    let ended = false
    const check = () => {
      if (ended || !client.connected || report.published < orders.messages || seen.size < orders.messages) return
      ended = true
      client.end(false, {}, () => {
        unfinished.delete(id)
        resolve(report)
      })
    }
    const fill = () => {
      while (next < orders.messages && next - report.published < window) {
        const qos = 1 + next % 2
        const payload = `${orders.mark} ${Math.floor(next / 2)}`
        next++
        client.publish(`up/${id}/${qos}`, payload, { qos, properties }, (err) => {
          if (err) report.errors.push(`publish: ${err}`)
          report.published++
          if (report.published % orders.cut === 0 && report.published < orders.messages) client.stream.destroy()
          fill()
          check()
        })
      }
    }
    client.on('error', (err) => report.errors.push(String(err)))
    client.on('connect', (connack) => {
      report.connects++
      if (report.connects > 1) {
        if (version !== 3 && !connack.sessionPresent) report.errors.push('the session is gone')
        setImmediate(check)
        return
      }
      client.subscribe(`down/${id}/#`, { qos: 2 }, (err, granted) => {
        if (err || granted[0].qos !== 2) report.errors.push(`subscribe: ${err} ${JSON.stringify(granted)}`)
        console.log('SUBSCRIBED ' + id)
        fill()
      })
    })
    client.on('message', (topic, payload, packet) => {
      const key = `${topic} ${payload}`
      seen.add(key)
      report.received.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain })
      check()
    })
  })
}

Promise.all(orders.devices.map(device)).then((reports) => {
  for (const r of reports) console.log('REPORT ' + JSON.stringify(r))
})

process.on('SIGTERM', () => {
  for (const r of unfinished.values()) console.log('UNFINISHED ' + JSON.stringify(r))
  process.exit(1)
})
