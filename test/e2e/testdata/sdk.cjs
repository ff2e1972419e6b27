// A device with the vendor's own Node SDK, which signs for Alibaba Cloud over plain TCP.
//
// SDK is what to do, in JSON: url, productKey, deviceName, deviceSecret, subscribe and publish (topics), messages (how many), mark.
// It prints CONNECTED, PUBLISHED N when the broker has acknowledged a message, RECEIVED TOPIC PAYLOAD, CLOSED, OFFLINE
// and ERROR TEXT. It ends at SIGTERM.
'use strict';
const sdk = require('alibabacloud-iot-device-sdk');

const orders = JSON.parse(process.env.SDK);
const device = sdk.device({
  productKey: orders.productKey,
  deviceName: orders.deviceName,
  deviceSecret: orders.deviceSecret,
  brokerUrl: orders.url,
  keepalive: 60,
  reconnectPeriod: 500,
});
let begun = false;
device.on('connect', () => {
  console.log('CONNECTED');
  if (begun) return;
  begun = true;
  device.subscribe(orders.subscribe, { qos: 1 });
  for (let n = 1; n <= orders.messages; n++) {
    device.publish(orders.publish, `${orders.mark} ${n}`, { qos: 1 }, (err) => {
      console.log(err ? `ERROR publish ${n}: ${err.message}` : `PUBLISHED ${n}`);
    });
  }
});
device.on('message', (topic, payload) => console.log(`RECEIVED ${topic} ${payload}`));
device.on('close', () => console.log('CLOSED'));
device.on('error', (err) => console.log(`ERROR ${err.message}`));
process.on('SIGTERM', () => device.end(() => process.exit(0)));
