use proptest::prelude::*;

use super::*;

fn url(text: &str) -> WebhookUrl {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn refused(receivers: &Receivers, text: &str) -> bool {
    receivers.literal(&url(text)).is_err()
}

#[test]
fn a_url_is_taken_apart_once() {
    for (text, authority, target, tls, port) in [
        ("https://a.example", "a.example", "/", true, 443),
        ("https://a.example/", "a.example", "/", true, 443),
        ("http://A.example:8080/hooks/x/?t=a%20b&c=/", "a.example:8080", "/hooks/x/?t=a%20b&c=/", false, 8080),
        ("https://a.example?x=//y", "a.example", "/?x=//y", true, 443),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]", "/x", false, 80),
        ("https://0x7f.1:444/x", "127.0.0.1:444", "/x", true, 444),
    ] {
        let url = url(text);
        assert_eq!((url.authority().as_str(), url.target().as_str()), (authority, target), "{text}");
        assert_eq!((url.tls, url.port, url.as_str()), (tls, port, text));
    }
}

#[test]
fn what_is_no_url_of_a_receiver_is_refused() {
    let long = format!("https://a.example/{}", "a".repeat(2048));
    for text in [
        "",
        "a.example",
        "ftp://a.example",
        "HTTPS://a.example",
        "https://",
        "https:///x",
        "https://u@a.example",
        "https://u:p@a.example/",
        "https://a.example@b.example/",
        "https://a.example#x",
        "https://a.example/?x#y",
        "https://a.example:0/",
        "https://a.example:65536/",
        "https://a.example:/",
        "https://a.example/\r\nx: y",
        "https://a.example/?\r\nx: y",
        "https://a.example/a b",
        "https://a.example/?a b",
        "https://a.example\\@b.example/",
        "https://fe80::1%eth0/",
        "https://exämple.org/",
        "file:///etc/passwd",
        "http+unix://x/",
        long.as_str(),
    ] {
        assert!(text.parse::<WebhookUrl>().is_err(), "{text:?}");
    }
}

#[test]
fn special_and_private_addresses_are_refused_in_every_spelling() {
    let receivers = Receivers::default();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "0.0.0.0",
        "0",
        "[::]",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "0xc0a80101",
        "100.64.0.1",
        "198.18.0.1",
        "169.254.169.254",
        "2852039166",
        "0251.0376.0251.0376",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fc00::1]",
        "[2002:a00:1::]",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
    ] {
        assert!(refused(&receivers, &format!("https://{host}/x")), "{host}");
    }
    for host in ["203.0.113.7", "93.184.216.34", "[2606:2800::1]", "a.example", "localhost.example", "10.example"] {
        assert!(!refused(&receivers, &format!("https://{host}/x")), "{host}");
    }
}

#[test]
fn what_the_deployment_lists_may_be_told_and_nothing_beside_it() {
    let permit = |net: &str, ports: &[u16]| Permit { net: net.parse().unwrap(), ports: ports.to_vec() };
    let receivers = Receivers::new(vec![permit("127.0.0.1/32", &[8080]), permit("10.0.0.0/8", &[])]);
    for text in
        ["http://127.0.0.1:8080/", "http://localhost:8080/", "http://[::ffff:127.0.0.1]:8080/", "http://10.1.2.3/"]
    {
        assert!(!refused(&receivers, text), "{text}");
    }
    for text in ["http://127.0.0.1:8081/", "http://127.0.0.2:8080/", "http://[::1]:8080/", "http://192.168.0.1/"] {
        assert!(refused(&receivers, text), "{text}");
    }
    let own = "203.0.113.7".parse().unwrap();
    let host = Host::Name("a.example".into());
    assert!(receivers.address(own, 443, &host).is_ok());
    let refused = receivers.with_own([own]).address(own, 443, &host).unwrap_err();
    assert_eq!(refused.detail, "a.example (203.0.113.7) is an own address, to which this deployment sends no webhooks");
}

proptest! {
    #[test]
    fn attempts_go_on_for_a_day_and_end_with_it(chances in proptest::collection::vec(any::<u16>(), 64)) {
        let start = Timestamp::from_millis(1_795_500_000_000);
        let until = Timestamp::from_millis(start.as_millis() + ROUND_MS);
        let (mut now, mut tries) = (start, 0);
        let mut pauses = Vec::new();
        for chance in chances {
            tries += 1;
            let Some(next) = next_attempt(now, until, tries, chance) else { break };
            prop_assert!(next > now && next <= until);
            pauses.push(next.as_millis() - now.as_millis());
            now = next;
        }
        prop_assert_eq!(now, until, "the last attempt is at the end of the day");
        prop_assert!((12..40).contains(&tries), "{} attempts", tries);
        prop_assert!(pauses[0] <= 6_000 && pauses.iter().all(|pause| *pause <= 8_640_000));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(https?://)?[\\[\\]:@/?#%.a-z0-9\\\\ \u{e4}-]{0,40}") {
        if let Ok(url) = text.parse::<WebhookUrl>() {
            prop_assert!(url.target().starts_with('/'));
            prop_assert!(!url.authority().contains(['@', '/', '?', ' ']));
            let _ = Receivers::default().literal(&url);
        }
    }
}
