//! To which addresses an API's name may lead. A name that resolves to this machine, to the network around it or to a cloud's
//! metadata service is refused unless the operator named the address: whoever holds the name would otherwise have the
//! gateway carry its secret inside. Pure. IANA special-purpose registries (RFC 6890, RFC 8190).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses by their first bits: `10.1.0.0/16`, `fd00::/8`, `127.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// The text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address and no network; write `10.1.0.0/16` or `192.0.2.7`")]
pub struct NetworkFault(String);

impl FromStr for Network {
    type Err = NetworkFault;

    fn from_str(text: &str) -> Result<Self, NetworkFault> {
        let fault = || NetworkFault(text.chars().take(64).collect());
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| fault())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| fault())?;
        if bits > most { Err(fault()) } else { Ok(Self { base, bits }) }
    }
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (base.to_bits().into(), address.to_bits().into(), 32_u8),
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let differing: u128 = base ^ address;
        differing.checked_shr(u32::from(width.saturating_sub(self.bits))).is_none_or(|rest| rest == 0)
    }

    fn is_one_address(self) -> bool {
        self.bits == if self.base.is_ipv4() { 32 } else { 128 }
    }
}

/// Where clouds answer with credentials of the machine. A network that happens to hold one of them does not name it.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether the gateway may connect to this address for a target to which `named` addresses were given beside the public ones.
pub(crate) fn may_connect(address: IpAddr, named: &[Network]) -> bool {
    // An IPv4 address in IPv6 clothes is that IPv4 address.
    let address = address.to_canonical();
    if METADATA.contains(&address) || embedded(address).is_some_and(|inner| METADATA.contains(&inner)) {
        return named.iter().any(|network| network.is_one_address() && network.holds(address));
    }
    named.iter().any(|network| network.holds(address)) || is_public(address)
}

/// The IPv4 address to which a translator would send packets for this address (NAT64, 6to4).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => {
            let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        _ => None,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && b & 0xc0 == 64)
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && b & 0xfe == 18))
        }
        IpAddr::V6(v6) => match embedded(address) {
            Some(inner) => is_public(inner),
            // Only what is given out as global unicast (2000::/3), without Teredo, documentation and benchmarks.
            None => {
                let [first, second, ..] = v6.segments();
                first & 0xe000 == 0x2000 && !(first == 0x2001 && (second < 0x200 || second == 0xdb8)) && first != 0x3fff
            }
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn may(address: &str, named: &[&str]) -> bool {
        let named: Vec<Network> = named.iter().map(|text| text.parse().unwrap()).collect();
        may_connect(address.parse().unwrap(), &named)
    }

    #[test]
    fn addresses_inside_are_refused_unless_they_are_named() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "::127.0.0.1",
        ] {
            assert!(!may(address, &[]), "{address}");
        }
        for address in ["1.1.1.1", "140.82.121.4", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(may(address, &[]), "{address}");
        }
        assert!(may("10.1.2.3", &["10.1.0.0/16"]) && !may("10.2.2.3", &["10.1.0.0/16"]));
        assert!(
            may("::ffff:10.1.2.3", &["10.1.0.0/16"]) && may("127.0.0.1", &["127.0.0.1"]) && !may("127.0.0.2", &["127.0.0.1"])
        );
        assert!(may("fd12::1", &["fd12::/16"]) && !may("fd13::1", &["fd12::/16"]));
        assert!(may("10.0.0.1", &["0.0.0.0/0"]) && may("::1", &["::/0"]));
    }

    #[test]
    fn a_metadata_service_is_only_reached_by_its_own_address() {
        for address in ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"] {
            assert!(!may(address, &[]) && !may(address, &["0.0.0.0/0", "::/0", "169.254.0.0/16"]), "{address}");
        }
        assert!(!may("64:ff9b::a9fe:a9fe", &["::/0"]));
        assert!(may("169.254.169.254", &["169.254.169.254"]));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/x", "host", "10.0.0.0/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
