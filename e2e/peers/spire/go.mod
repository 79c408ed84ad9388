// Builds the SPIRE server and agent that the end-to-end scenarios run against.
module writ.test/spire-peer

go 1.26.6

require github.com/spiffe/spire v1.15.3

// The EJBCA client library is not served by every module proxy. No test of ours talks to
// an EJBCA server, so the plug-in that needs it is compiled against an absent client.
replace github.com/Keyfactor/ejbca-go-client-sdk => ./ejbca-absent

tool (
	github.com/spiffe/spire/cmd/spire-agent
	github.com/spiffe/spire/cmd/spire-server
)
