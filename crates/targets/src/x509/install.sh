#!/bin/sh
# Run once where the root authority's key is (root.key, root.pem), best offline. Makes an intermediate that can name
# nothing but tasks of `@TRUST_DOMAIN@`, and nothing below itself.
set -eu
umask 077
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out intermediate.key
openssl req -new -key intermediate.key -subj "/O=@TRUST_DOMAIN@/CN=Writ tasks" -out intermediate.csr
cat > intermediate.ext <<'EXT'
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
nameConstraints = critical, permitted;URI:@TRUST_DOMAIN@, excluded;DNS:., excluded;email:.
EXT
openssl x509 -req -in intermediate.csr -CA root.pem -CAkey root.key -CAcreateserial -days 90 -extfile intermediate.ext -out intermediate.pem
# intermediate.pem -> ca_certificate, intermediate.key -> ca_key (mode 0600, the user of Writ); delete it here.
