use std::str::FromStr as _;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn policy(allow: serde_json::Value) -> Policy {
    in_deployment(allow, Deployment::default())
}

fn in_deployment(allow: serde_json::Value, deployment: Deployment) -> Policy {
    let allow = serde_json::from_value(allow).unwrap();
    Policy::new(&Egress { mode: EgressMode::Allowlist, allow }, deployment)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn refusal(decided: Result<(), Refused>) -> Reason {
    decided.unwrap_err().reason
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    let policy = Policy::new(&Egress::default(), Deployment::default());
    assert_eq!(refusal(policy.name("example.org", Some(443))), Reason::NotAllowed);
    assert_eq!(refusal(policy.address(ip("93.184.216.34"), 443, None)), Reason::NotAllowed);
}

#[test]
fn names_are_exact_or_below() {
    let policy = policy(json!([{"domain": "Example.org", "ports": [443]}, {"domain": "*.example.com"}]));
    assert_eq!(policy.name("example.org", Some(443)), Ok(()));
    assert_eq!(policy.name("example.org", None), Ok(()));
    assert_eq!(refusal(policy.name("example.org", Some(80))), Reason::PortNotAllowed);
    assert_eq!(refusal(policy.name("a.example.org", Some(443))), Reason::NotAllowed);
    assert_eq!(policy.name("a.b.example.com", Some(1)), Ok(()));
    for other in ["example.com", "badexample.com", ".example.com", "example.com.evil.org"] {
        assert_eq!(refusal(policy.name(other, None)), Reason::NotAllowed, "{other}");
    }
}

#[test]
fn a_refusal_tells_the_rule_that_would_allow_it() {
    let policy = policy(json!(["10.0.0.0/8"]));
    let refused = policy.name("example.org", Some(443)).unwrap_err();
    assert_eq!(refused.allowed_by.as_deref(), Some(r#"{"domain":"example.org","ports":[443]}"#));
    let refused = policy.address(ip("192.168.1.1"), 80, None).unwrap_err();
    assert_eq!(refused.allowed_by.as_deref(), Some(r#"{"cidr":"192.168.1.1/32","ports":[80]}"#));
    // And it does.
    let allowed_by: serde_json::Value = serde_json::from_str(&refused.allowed_by.unwrap()).unwrap();
    assert_eq!(in_deployment(json!([allowed_by]), Deployment::default()).address(ip("192.168.1.1"), 80, None), Ok(()));
    // What no rule can allow names none.
    assert_eq!(policy.address(ip("169.254.169.254"), 80, None).unwrap_err().allowed_by, None);
}

#[test]
fn an_answer_is_what_some_port_could_reach() {
    let permitted = vec![Permit { net: "127.0.0.1/32".parse().unwrap(), ports: vec![8080] }];
    let policy = in_deployment(
        json!([{"domain": "a.test"}, {"cidr": "10.0.0.0/8", "ports": [5432]}]),
        Deployment { permitted, ..Default::default() },
    );
    for told in ["93.184.216.34", "10.1.2.3", "127.0.0.1"] {
        assert_eq!(policy.answer(ip(told), "a.test"), Ok(()), "{told}");
    }
    assert_eq!(refusal(policy.answer(ip("192.168.1.1"), "a.test")), Reason::PrivateAddress);
    assert_eq!(refusal(policy.answer(ip("127.0.0.2"), "a.test")), Reason::AlwaysDenied(Special::Loopback));
    assert_eq!(refusal(policy.answer(ip("169.254.169.254"), "a.test")), Reason::AlwaysDenied(Special::Metadata));
    // It is no permission to connect.
    assert_eq!(refusal(policy.address(ip("127.0.0.1"), 8081, Some("a.test"))), Reason::AlwaysDenied(Special::Loopback));
    assert_eq!(refusal(policy.address(ip("10.1.2.3"), 80, Some("a.test"))), Reason::PortNotAllowed);
}

#[test]
fn the_edges_of_a_cidr_are_inside_and_their_neighbours_are_not() {
    let policy = policy(json!(["203.0.113.8/31", "198.51.100.0/24", "2001:db8::/127"]));
    for inside in ["203.0.113.8", "203.0.113.9", "198.51.100.0", "198.51.100.255", "2001:db8::", "2001:db8::1"] {
        assert_eq!(policy.address(ip(inside), 1, None), Ok(()), "{inside}");
    }
    for outside in ["203.0.113.7", "203.0.113.10", "198.51.99.255", "198.51.101.0", "2001:db8::2"] {
        assert_eq!(refusal(policy.address(ip(outside), 1, None)), Reason::NotAllowed, "{outside}");
    }
    assert_eq!(policy.address(ip("::ffff:203.0.113.8"), 1, None), Ok(()));
}

#[test]
fn some_addresses_are_refused_whatever_the_list_says() {
    let own = ["192.0.2.7", "2001:db8::7"].map(ip).to_vec();
    let policy =
        in_deployment(json!(["0.0.0.0/0", "::/0", {"domain": "evil.org"}]), Deployment { own, ..Default::default() });
    for (address, special) in [
        ("169.254.169.254", Special::Metadata),
        ("100.100.100.200", Special::Metadata),
        ("168.63.129.16", Special::Metadata),
        ("fd00:ec2::254", Special::Metadata),
        ("169.254.1.1", Special::LinkLocal),
        ("fe80::1", Special::LinkLocal),
        ("fec0::1", Special::LinkLocal),
        ("127.0.0.1", Special::Loopback),
        ("127.255.255.255", Special::Loopback),
        ("::1", Special::Loopback),
        ("0.0.0.0", Special::Reserved),
        ("0.1.2.3", Special::Reserved),
        ("::", Special::Reserved),
        ("240.0.0.1", Special::Reserved),
        ("224.0.0.1", Special::Multicast),
        ("255.255.255.255", Special::Multicast),
        ("ff02::1", Special::Multicast),
        ("::ffff:169.254.169.254", Special::Metadata),
        ("::169.254.169.254", Special::Reserved),
        ("64:ff9b::a9fe:a9fe", Special::Metadata),
        ("64:ff9b:1::a9fe:a9fe", Special::Metadata),
        ("2002:7f00:1::", Special::Loopback),
        ("2001:0:1:2:3:4:5601:5601", Special::Metadata),
        ("192.0.2.7", Special::Own),
        ("2001:db8::7", Special::Own),
    ] {
        for name in [None, Some("evil.org")] {
            assert_eq!(refusal(policy.address(ip(address), 80, name)), Reason::AlwaysDenied(special), "{address}");
        }
    }
}

#[test]
fn a_deployment_can_permit_what_a_list_then_has_to_name() {
    let permitted = vec![Permit { net: IpNet::from_str("127.0.0.1/32").unwrap(), ports: vec![8443] }];
    let deployment = Deployment { permitted, own: vec![ip("127.0.0.1")] };
    let named = in_deployment(json!(["127.0.0.1/32", {"domain": "local.test"}]), deployment.clone());
    assert_eq!(named.address(ip("127.0.0.1"), 8443, None), Ok(()));
    assert_eq!(named.address(ip("::ffff:127.0.0.1"), 8443, Some("local.test")), Ok(()));
    assert_eq!(refusal(named.address(ip("127.0.0.1"), 8088, None)), Reason::AlwaysDenied(Special::Loopback));
    let unnamed = in_deployment(json!([]), deployment);
    assert_eq!(refusal(unnamed.address(ip("127.0.0.1"), 8443, None)), Reason::NotAllowed);
}

#[test]
fn private_addresses_need_a_cidr_also_behind_an_allowed_name() {
    let policy = policy(json!([{"domain": "intern.example"}, {"cidr": "10.1.0.0/16", "ports": [443]}]));
    for address in ["10.2.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "fd12::1", "64:ff9b::a00:1"] {
        assert_eq!(
            refusal(policy.address(ip(address), 443, Some("intern.example"))),
            Reason::PrivateAddress,
            "{address}"
        );
    }
    assert_eq!(policy.address(ip("10.1.0.1"), 443, Some("intern.example")), Ok(()));
    assert_eq!(refusal(policy.address(ip("10.1.0.1"), 80, Some("intern.example"))), Reason::PortNotAllowed);
    assert_eq!(policy.address(ip("93.184.216.34"), 443, Some("intern.example")), Ok(()));
    assert_eq!(refusal(policy.address(ip("93.184.216.34"), 443, None)), Reason::NotAllowed);
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        any::<u32>().prop_map(|bits| IpAddr::V6(std::net::Ipv4Addr::from(bits).to_ipv6_mapped())),
        (0_u32..0x1_0000).prop_map(|low| IpAddr::V4((0xa9fe_0000 | low).into())),
        (0_u32..0x100_0000).prop_map(|low| IpAddr::V4((0x7f00_0000 | low).into())),
    ]
}

proptest! {
    #[test]
    fn an_allowed_address_is_covered_and_never_special(address in addresses(), port in 1_u16.., bits in 0_u8..=32) {
        let net = IpNet::new(ip("203.0.113.0"), bits).unwrap();
        let policy = policy(json!([net.to_string()]));
        let own = canonical(address);
        let allowed = policy.address(address, port, None).is_ok();
        prop_assert_eq!(allowed, net.contains(&own) && Special::of(own).is_none());
    }

    #[test]
    fn a_mapped_address_is_decided_like_the_plain_one(bits: u32, port in 1_u16..) {
        let policy = policy(json!(["0.0.0.0/1", {"cidr": "128.0.0.0/2", "ports": [80]}]));
        let plain = std::net::Ipv4Addr::from(bits);
        let mapped = IpAddr::V6(plain.to_ipv6_mapped());
        prop_assert_eq!(policy.address(plain.into(), port, None), policy.address(mapped, port, None));
    }

    #[test]
    fn no_text_makes_a_host_of_what_a_client_would_read_otherwise(text in "[0-9a-fxX.:\\[\\]-]{0,24}") {
        if let Ok(host) = Host::from_str(&text) {
            prop_assert_eq!(Host::from_str(&host.to_string()), Ok(host));
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_the_same_host(bits: u32) {
        let [a, b, c, d] = bits.to_be_bytes();
        let host = Ok(Host::Address(IpAddr::V4(bits.into())));
        for text in [
            format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"), format!("{a}.{b}.{c}.{d}"),
            format!("0{a:o}.{b:#x}.{c}.0{d:o}"), format!("{a}.{b}.{}", u16::from_be_bytes([c, d])),
        ] {
            prop_assert_eq!(Host::from_str(&text), host.clone(), "{}", text);
        }
    }
}

#[test]
fn the_upstream_of_a_binding_may_be_private_but_not_special() {
    let loopback = Permit { net: "127.0.0.0/8".parse().unwrap(), ports: vec![8443] };
    let deployment = Deployment { permitted: vec![loopback], own: vec![ip("198.51.100.7")] };
    let policy = Policy::new(&Egress::default(), deployment);
    for fine in ["93.184.216.34", "10.1.2.3", "192.168.0.1", "::ffff:10.1.2.3", "2606:2800:220:1::1"] {
        assert_eq!(policy.upstream(ip(fine), 443), Ok(()), "{fine}");
    }
    for special in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "224.0.0.1", "198.51.100.7", "::1"] {
        assert!(matches!(refusal(policy.upstream(ip(special), 443)), Reason::AlwaysDenied(_)), "{special}");
    }
    // What the deployment permits is permitted on those ports.
    assert_eq!(policy.upstream(ip("127.0.0.1"), 8443), Ok(()));
    assert!(matches!(refusal(policy.upstream(ip("127.0.0.1"), 443)), Reason::AlwaysDenied(_)));
}
