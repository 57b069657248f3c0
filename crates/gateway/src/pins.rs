//! Which names the session was given which addresses for. A connection that the sandbox's kernel caught has only an
//! address; here is what name it may be for. Names that are asked for by name are resolved anew and need no pin.

use std::{collections::BTreeMap, net::IpAddr};

/// Pairs of a name and an address that are kept. The ones that were not used for longest go first.
const MAX_PINS: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// When each was used last.
    used: BTreeMap<(IpAddr, String), u64>,
    /// The same the other way round.
    order: BTreeMap<u64, (IpAddr, String)>,
    clock: u64,
}

impl Pins {
    /// A name was resolved to an address, and the session was told so.
    pub(crate) fn pin(&mut self, name: &str, address: IpAddr) {
        self.touch((address, name.to_owned()));
        while self.used.len() > MAX_PINS {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.used.remove(&oldest);
        }
    }

    /// The names of an address, the latest first.
    pub(crate) fn names(&mut self, address: IpAddr) -> Vec<String> {
        let of_address = self.used.range((address, String::new())..).take_while(|((pinned, _), _)| *pinned == address);
        let mut found: Vec<(u64, String)> = of_address.map(|((_, name), used)| (*used, name.clone())).collect();
        found.sort_unstable();
        for (_, name) in &found {
            self.touch((address, name.clone()));
        }
        found.into_iter().rev().map(|(_, name)| name).collect()
    }

    fn touch(&mut self, pin: (IpAddr, String)) {
        self.clock += 1;
        if let Some(before) = self.used.insert(pin.clone(), self.clock) {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, pin);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn an_address_knows_its_names_latest_first() {
        let mut pins = Pins::default();
        pins.pin("a.test", ip(1));
        pins.pin("b.test", ip(1));
        pins.pin("c.test", ip(2));
        assert_eq!(pins.names(ip(1)), ["b.test", "a.test"]);
        pins.pin("a.test", ip(1));
        assert_eq!(pins.names(ip(1)), ["a.test", "b.test"]);
        assert_eq!(pins.names(ip(3)), Vec::<String>::new());
    }

    #[test]
    fn the_table_is_bounded_and_what_is_used_stays() {
        let mut pins = Pins::default();
        pins.pin("used.test", ip(0));
        for number in 1..10_000 {
            pins.pin("many.test", ip(number));
            assert_eq!(pins.names(ip(0)), ["used.test"]);
        }
        assert_eq!(pins.used.len(), MAX_PINS);
        assert_eq!(pins.order.len(), MAX_PINS);
        assert_eq!(pins.names(ip(1)), Vec::<String>::new());
        assert_eq!(pins.names(ip(9_999)), ["many.test"]);
    }
}
