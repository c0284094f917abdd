/**
 * A certificate for 127.0.0.1 that nobody trusts, and its key, for servers of tests. Made by
 * `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1`.
 */
export const certificate = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4cP5wci+kgMKYxDE
BIWXWo1mMAEb1ketlztY9J6XG9qhRANCAAQtZCDmQUBuQjJ57lSmC3GKAh6XJOex
ytaiR1yAru/cNB/rbGs3VWo745qXTKOMQIhCw4LUOB84BYWsGCaE/Z1w
-----END PRIVATE KEY-----
`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUQ+tFlGG1P7eX0i24wLkPG7PGgRswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA0MzgxMVoYDzIxMjYxMDI4
MDQzODExWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQtZCDmQUBuQjJ57lSmC3GKAh6XJOexytaiR1yAru/cNB/rbGs3VWo7
45qXTKOMQIhCw4LUOB84BYWsGCaE/Z1wo2QwYjAdBgNVHQ4EFgQUTuEnTwc1Oopw
/BtMnIis001KH5kwHwYDVR0jBBgwFoAUTuEnTwc1Oopw/BtMnIis001KH5kwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQC
IF0qsvqQJDcDaqEOiaBKFUZhbI5mOTCGwLogW02fLTtBAiBVljmwTLlcKCjsCi4c
w/RnzN4MFSTG7h3BCxRUbVb/Vw==
-----END CERTIFICATE-----
`
}
