//! Patterns of the configuration, and the hosts, paths and channels that they meet.

#![no_main]

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use pushbridge::model::channel::ChannelName;
use pushbridge::model::pattern::ChannelPattern;
use pushbridge::route::{HostPattern, Match, PathPattern, Route, RouteTable, Template};

fuzz_target!(|texts: (&str, &str, &str, &str)| {
    let (path, template, host, asked) = texts;
    if let Ok(pattern) = ChannelPattern::new(template)
        && ChannelName::new(asked).is_ok()
    {
        let _ = pattern.matches(asked);
    }
    let Ok(path) = PathPattern::parse(path) else { return };
    let template = Template::parse(template);
    let matcher = Match { host: HostPattern::parse(host).ok(), path, methods: Vec::new(), headers: Vec::new() };
    let table = RouteTable::new(vec![Route { name: "r".into(), matcher, action: () }]);
    if let Ok((route, params)) = table.find(host, asked, &Method::GET, &HeaderMap::new()) {
        assert!(route.matcher.path.matches(asked).is_some());
        if let Ok(template) = &template
            && template.parameters().all(|name| params.get(name).is_some())
        {
            let _ = template.fill(&params);
        }
    }
});
