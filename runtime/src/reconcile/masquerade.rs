//! Who gives containers' own conversations with the outside an address of the host's.

use runtime_api::MasqueradedBy;
use runtime_common::maps::{ENDPOINT_MASQUERADE_V4, ENDPOINT_MASQUERADE_V6};
use serde::{Deserialize, Serialize};

use crate::host::NatRules;
use crate::model::Network;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Masquerade {
    /// IPv4 of networks that the engine would masquerade, where no rule of the host does it already.
    #[default]
    Auto,
    /// Every network that has a way to the outside, both families.
    On,
    /// Never.
    Off,
}

impl Masquerade {
    /// Who does it for a network under these rules of the host. Never both: what the datapath sends out itself passes by
    /// the host's rules.
    pub fn of(self, network: &Network, rules: &NatRules) -> MasqueradedBy {
        let by_rules = network.subnets.iter().filter_map(|s| s.parse().ok()).any(|s| rules.cover(&s));
        // Told to make no rules, the Engine says of its default network that it is not to be masqueraded.
        let wanted = network.masquerade || network.is_default_bridge && !rules.engine;
        let by_runtime = match self {
            Masquerade::Off => false,
            Masquerade::On => !network.internal,
            Masquerade::Auto => wanted && !network.internal && !by_rules,
        };
        match (by_runtime, by_rules) {
            (true, _) => MasqueradedBy::Runtime,
            (false, true) => MasqueradedBy::HostRules,
            (false, false) => MasqueradedBy::Nobody,
        }
    }

    /// Bits `ENDPOINT_MASQUERADE_*` of a network's endpoints.
    pub fn flags(self, by: MasqueradedBy) -> u16 {
        match (self, by) {
            (Masquerade::On, MasqueradedBy::Runtime) => ENDPOINT_MASQUERADE_V4 | ENDPOINT_MASQUERADE_V6,
            (_, MasqueradedBy::Runtime) => ENDPOINT_MASQUERADE_V4,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn network(masquerade: bool, internal: bool) -> Network {
        Network {
            id: "net".into(),
            name: "bridge".into(),
            driver: "bridge".into(),
            bridge: None,
            is_default_bridge: true,
            labels: BTreeMap::new(),
            subnets: vec!["fd00:17::/64".into(), "172.17.0.0/16".into()],
            internal,
            masquerade,
            endpoints: BTreeMap::new(),
        }
    }

    #[test]
    fn auto_does_what_the_engine_would_and_nobody_does() {
        use Masquerade::{Auto, Off, On};
        use MasqueradedBy::{HostRules, Nobody, Runtime};
        let none = NatRules::default();
        let engine = NatRules::parse(":DOCKER - [0:0]\n");
        let docker = NatRules::parse(":DOCKER - [0:0]\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n");
        let rows = [
            (Auto, true, false, &none, Runtime),
            (Auto, true, false, &docker, HostRules),
            (Auto, false, false, &none, Runtime),
            (Auto, false, false, &engine, Nobody),
            (Auto, true, true, &none, Nobody),
            (On, false, false, &none, Runtime),
            (On, true, false, &docker, Runtime),
            (On, true, true, &none, Nobody),
            (Off, true, false, &none, Nobody),
            (Off, true, false, &docker, HostRules),
        ];
        for (mode, masquerade, internal, rules, by) in rows {
            assert_eq!(mode.of(&network(masquerade, internal), rules), by, "{mode:?} {masquerade} {internal}");
        }
        let other = Network { is_default_bridge: false, ..network(false, false) };
        assert_eq!(Auto.of(&other, &none), Nobody);
        assert_eq!(Auto.flags(Runtime), ENDPOINT_MASQUERADE_V4);
        assert_eq!(On.flags(Nobody), 0);
    }
}
