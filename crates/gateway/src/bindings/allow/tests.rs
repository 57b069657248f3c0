use proptest::prelude::*;

use super::*;

fn allow(methods: &[&str], paths: &[&str]) -> Allow {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Allow::new(&BindingKind::Bearer, &[BindingAllow { methods: own(methods), paths: own(paths) }])
}

fn git(paths: &[&str]) -> Allow {
    let paths: Vec<String> = paths.iter().map(|text| (*text).to_owned()).collect();
    let rules = if paths.is_empty() { vec![] } else { vec![BindingAllow { methods: vec![], paths }] };
    Allow::new(&BindingKind::Git { username: "x".to_owned() }, &rules)
}

fn get(allow: &Allow, path: &str) -> bool {
    allow.decide(&Method::GET, path, None).is_ok()
}

#[test]
fn methods_and_paths_are_compared() {
    let allow = allow(&["get", "POST"], &["/repos/*/issues", "/users/**", "/v*/status.json"]);
    for path in ["/repos/a/issues", "/users", "/users/", "/users/a/b", "/v2/status.json", "/repos/a%20b/issues"] {
        assert!(get(&allow, path), "{path}");
    }
    for path in ["/", "/repos/a/b/issues", "/repos//issues", "/repos/a/issues/", "/usersx", "/v2/x/status.json"] {
        assert!(!get(&allow, path), "{path}");
    }
    assert!(allow.decide(&Method::POST, "/users", None).is_ok());
    let why = allow.decide(&Method::DELETE, "/users", None).unwrap_err();
    assert_eq!(why, "it allows only GET, POST on /repos/*/issues, /users/**, /v*/status.json");
    assert!(allow.decide(&Method::from_bytes(b"get").unwrap(), "/users", None).is_err());
}

#[test]
fn what_servers_read_differently_is_refused_even_when_everything_is_allowed() {
    let all = Allow::new(&BindingKind::Bearer, &[]);
    for path in [
        "",
        "*",
        "x",
        "//",
        "/a//b",
        "/..",
        "/a/../b",
        "/a/.",
        "/%2e%2e/b",
        "/.%2E",
        "/a/..%2fb",
        "/a%2f..%2fb",
        "/a%2f%2fb",
        "/..;x=1/b",
        "/a\\b",
        "/a%5cb",
        "/a%5C..%5Cb",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%252e%252e",
        "/a%252fb",
        "/a%25252f",
        "/a%c0%ae",
        "/a%ff",
        "/ü",
        "/a b",
        "/%2f",
    ] {
        assert!(!get(&all, path), "{path}");
    }
    for path in
        ["/", "/a", "/a/", "/a.b/..c", "/a%2eb", "/%C3%BC", "/100%25", "/a;b=c", "/a:b@c", "/a%2Fb", "/~u/!$&'()*+,="]
    {
        assert!(get(&all, path), "{path}");
    }
    assert!(all.decide(&Method::TRACE, "/", None).is_err());
    assert!(all.decide(&Method::CONNECT, "/", None).is_err());
}

#[test]
fn an_encoded_slash_has_to_be_allowed_in_both_readings() {
    assert!(!get(&allow(&[], &["/projects/*"]), "/projects/a%2fb"));
    assert!(!get(&allow(&[], &["/projects/*/*"]), "/projects/a%2fb"));
    assert!(get(&allow(&[], &["/projects/**"]), "/projects/a%2fb"));
    assert!(get(&allow(&[], &["/projects/*", "/projects/*/*"]), "/projects/a%2fb"));
}

#[test]
fn git_may_read_and_pushes_only_when_that_is_listed() {
    let ask = |allow: &Allow, method: Method, path: &str, query: &str| {
        allow.decide(&method, path, Some(query).filter(|query| !query.is_empty())).is_ok()
    };
    let reading = git(&[]);
    assert!(ask(&reading, Method::GET, "/o/r.git/info/refs", "service=git-upload-pack"));
    assert!(ask(&reading, Method::POST, "/o/r.git/git-upload-pack", ""));
    for (method, path, query) in [
        (Method::GET, "/o/r.git/info/refs", ""),
        (Method::GET, "/o/r.git/info/refs", "service=git-receive-pack"),
        (Method::GET, "/o/r.git/info/refs", "service=git-upload-pack&service=git-receive-pack"),
        (Method::GET, "/o/r.git/info/refs", "service=git%2Dreceive-pack"),
        (Method::POST, "/o/r.git/git-receive-pack", ""),
        (Method::GET, "/o/r.git/git-upload-pack", ""),
        (Method::GET, "/o/r.git/HEAD", ""),
        (Method::GET, "/user", ""),
        (Method::GET, "/", ""),
    ] {
        assert!(!ask(&reading, method.clone(), path, query), "{method} {path}?{query}");
    }
    let one = git(&["/o/r.git/**"]);
    assert!(ask(&one, Method::GET, "/o/r.git/HEAD", ""));
    assert!(ask(&one, Method::POST, "/o/r.git/git-upload-pack", ""));
    assert!(!ask(&one, Method::POST, "/o/other.git/git-upload-pack", ""));
    assert!(!ask(&one, Method::POST, "/o/r.git/git-receive-pack", ""));
    assert!(!ask(&one, Method::GET, "/o/r.git/info/refs", "service=git-receive-pack"));
    let pushing = git(&["/o/r.git/git-receive-pack"]);
    assert!(ask(&pushing, Method::POST, "/o/r.git/git-receive-pack", ""));
    assert!(ask(&pushing, Method::GET, "/o/r.git/info/refs", "service=git-receive-pack"));
    assert!(!ask(&pushing, Method::GET, "/o/s.git/info/refs", "service=git-receive-pack"));
    assert!(!ask(&pushing, Method::POST, "/o/r.git/git-upload-pack", ""));
}

proptest! {
    #[test]
    fn no_reading_of_an_allowed_path_leaves_the_allowed_folder(
        path in "(/|a|b|\\.|%2e|%2F|%5c|;|%25|\\\\|%00|ok){0,12}",
    ) {
        let allow = allow(&[], &["/ok/**"]);
        if get(&allow, &path) {
            let mut read = path;
            for _ in 0..3 {
                let url = url::Url::parse(&format!("http://host{read}")).unwrap();
                prop_assert!(url.path() == "/ok" || url.path().starts_with("/ok/"), "{}", url);
                read = percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
            }
        }
    }
}
