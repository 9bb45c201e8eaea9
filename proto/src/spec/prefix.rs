//! A virtual address with the length of its prefix.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// `192.168.1.50/24` or `2001:db8::50/64`: an address that a host can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPrefix {
    ip: IpAddr,
    len: u8,
}

impl AddressPrefix {
    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Length of the prefix.
    #[must_use]
    pub fn len(self) -> u8 {
        self.len
    }

    /// True for a prefix of length 0, which [`FromStr`] refuses.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    fn host_bits(self) -> (u128, u128) {
        let (bits, width) = match self.ip {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let host = width - u32::from(self.len);
        let mask = if host >= 128 { u128::MAX } else { (1 << host) - 1 };
        (bits & mask, mask)
    }

    fn unusable(self) -> Option<&'static str> {
        let (host, mask) = self.host_bits();
        match self.ip {
            ip if ip.is_unspecified() => Some("is the unspecified address"),
            ip if ip.is_loopback() => Some("is a loopback address"),
            ip if ip.is_multicast() => Some("is a multicast address"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
            IpAddr::V4(_) if mask > 1 && host == 0 => Some("is the network's own address, not a host's"),
            IpAddr::V4(_) if mask > 1 && host == mask => Some("is the network's broadcast address"),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

impl FromStr for AddressPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(60).collect();
        let Some((ip, len)) = text.split_once('/') else {
            return Err(format!(
                "{shown:?} has no prefix length; write it as in \"192.168.1.50/24\" or \"2001:db8::50/64\""
            ));
        };
        let ip: IpAddr =
            ip.parse().map_err(|_| format!("{shown:?} is not an IPv4 or IPv6 address with prefix length"))?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let len: u8 = len
            .parse()
            .ok()
            .filter(|len| (1..=longest).contains(len))
            .ok_or_else(|| format!("{shown:?}: the prefix length is 1 to {longest}"))?;
        let prefix = Self { ip, len };
        match prefix.unusable() {
            Some(why) => Err(format!("{shown:?} {why}")),
            None => Ok(prefix),
        }
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

impl Serialize for AddressPrefix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressPrefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["192.168.1.50/24", "10.0.0.1/32", "10.0.0.0/31", "2001:db8::50/64", "fe80::1/128"] {
            assert_eq!(good.parse::<AddressPrefix>().map(|p| p.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "192.168.1.50",
            "192.168.1.50/33",
            "192.168.1.50/0",
            "192.168.1.0/24",
            "192.168.1.255/24",
            "127.0.0.1/8",
            "::/64",
            "::1/128",
            "ff02::1/64",
            "224.0.0.1/24",
            "nonsense/24",
            "",
        ] {
            assert!(bad.parse::<AddressPrefix>().is_err(), "{bad}");
        }
    }
}
