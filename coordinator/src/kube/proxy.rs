//! Through which proxy a cluster is reached, as kubectl has it: that of the kubeconfig's cluster, or that of HTTPS_PROXY unless NO_PROXY
//! names the cluster's host. (The `kube` crate compares NO_PROXY with the proxy's own host.) Pure.

use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;

/// The proxy for this server, of the context that is named, or the current one; `None`: it is reached directly.
pub fn of(
    server: &Uri,
    kubeconfig: &Kubeconfig,
    context: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Uri> {
    let own = own(kubeconfig, context).map(str::to_owned);
    own.or_else(|| of_environment(server, environment)).and_then(|proxy| proxy.parse().ok())
}

fn own<'a>(kubeconfig: &'a Kubeconfig, context: Option<&str>) -> Option<&'a str> {
    let name = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|known| known.name == name)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|known| known.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.as_deref().filter(|proxy| !proxy.is_empty())
}

fn of_environment(server: &Uri, environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = |names: [&str; 2]| names.into_iter().find_map(|name| environment(name).filter(|value| !value.is_empty()));
    let proxy = set(["HTTPS_PROXY", "https_proxy"])?;
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    let none = set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let is_proxied = Matcher::builder().all(proxy.clone()).no(none).build().intercept(server).is_some();
    is_proxied.then_some(proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(own: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let kubeconfig = serde_json::json!({
            "clusters": [{"name": "c", "cluster": {"server": "https://api.example.com:6443", "proxy-url": own}}],
            "contexts": [{"name": "me", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "me",
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let server = "https://api.example.com:6443".parse().unwrap();
        of(&server, &kubeconfig, None, &environment).map(|proxy| proxy.to_string())
    }

    #[test]
    fn a_proxy_is_found_as_kubectl_finds_it() {
        let proxy = ("HTTPS_PROXY", "http://me:word@proxy.corp:3128");
        let through = Some("http://me:word@proxy.corp:3128/".to_owned());
        assert_eq!(found(None, &[]), None);
        assert_eq!(found(None, &[proxy]), through);
        assert_eq!(found(None, &[("https_proxy", "proxy.corp:3128")]), Some("http://proxy.corp:3128/".to_owned()));
        // What NO_PROXY says is said of the server, and not of the proxy.
        assert_eq!(found(None, &[proxy, ("NO_PROXY", "localhost,.example.com")]), None);
        assert_eq!(found(None, &[proxy, ("no_proxy", "*")]), None);
        assert_eq!(found(None, &[proxy, ("NO_PROXY", "proxy.corp")]), through);
        let own = Some("socks5://gate.corp:1080");
        assert_eq!(found(own, &[proxy, ("NO_PROXY", "*")]), Some("socks5://gate.corp:1080/".to_owned()));
    }
}
