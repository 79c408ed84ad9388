//! A route of an API as its operator described it: the request that it is recognised by, where each of its parameters stands,
//! and what passes unseen. Owns the check that no field could be read in two ways; the words that policy shares (description,
//! labels, parameters) are the policy crate's.

use super::config::{ConfigFault, NO_ROUTE, header};
use super::path::Template;
use domain::{Offer, OfferName, Param, ParamType};
use http::{HeaderName, Method};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The members of `[offers.NAME]` that say how a route is recognised; the common ones are the policy crate's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    method: String,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: BTreeMap<String, String>,
    #[serde(default)]
    body_format: Option<BodyFormat>,
    #[serde(default)]
    pass: Vec<String>,
    #[serde(default)]
    opaque_answers: bool,
    #[serde(default)]
    websocket: bool,
    #[serde(default)]
    subprotocols: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BodyFormat {
    Json,
    Form,
}

/// What the body of a request is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// There must be none.
    Nothing,
    /// A JSON object; fields by their path.
    Json(Fields),
    /// `application/x-www-form-urlencoded`.
    Form(Fields),
    /// Anything, unseen by policy.
    Anything,
}

/// Fields of a body: those that policy sees, and those that pass unseen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// Path to parameter.
    pub(crate) params: BTreeMap<Vec<String>, String>,
    pub(crate) pass: BTreeSet<Vec<String>>,
    pub(crate) pass_others: bool,
}

/// A route: one offer of the target, recognised by method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub(crate) offer: OfferName,
    pub(crate) method: Method,
    pub(crate) path: Template,
    pub(crate) params: BTreeMap<String, Param>,
    pub(crate) query: Fields,
    pub(crate) headers: HashMap<HeaderName, String>,
    pub(crate) pass_headers: HashSet<HeaderName>,
    pub(crate) body: BodyRule,
    /// Whether answers may be compressed files, in which nothing can be looked for.
    pub(crate) opaque_answers: bool,
    /// The subprotocols that may be asked for, if the route is a WebSocket.
    pub(crate) websocket: Option<Vec<String>>,
}

impl Route {
    pub(super) fn new(table: RouteTable, offer: Offer) -> Result<Self, ConfigFault> {
        let name = offer.name.clone();
        Self::read(table, offer).map_err(|fault| ConfigFault::Route { route: name, fault })
    }

    fn read(table: RouteTable, offer: Offer) -> Result<Self, String> {
        if offer.name.as_str() == NO_ROUTE {
            return Err("the name stands for requests that match no route".into());
        }
        let method = method(&table.method)?;
        let path = Template::parse(&table.path).map_err(|fault| fault.to_string())?;
        let Passed { query: pass_query, others_query, headers: pass_headers, body: pass_body, others_body, anything } =
            Passed::read(&table.pass)?;
        let one = |fields: BTreeMap<String, String>| fields.into_iter().map(|(field, param)| (vec![field], param)).collect();
        let query = Fields { params: one(table.query), pass: pass_query, pass_others: others_query };
        let headers = table.headers.iter().map(|(name, param)| Ok((own_header(name)?, param.clone())));
        let headers = headers.collect::<Result<HashMap<_, _>, String>>()?;
        let seen = !table.body.is_empty() || !pass_body.is_empty() || others_body;
        let body = match (seen, anything, table.body_format) {
            (true, true, _) => return Err("`pass` of the whole `body` leaves no field of it to be read".into()),
            (false, true, _) => BodyRule::Anything,
            (false, false, _) => BodyRule::Nothing,
            (true, false, None | Some(BodyFormat::Json)) => {
                let params = table.body.into_iter().map(|(path, param)| (dotted(&path), param)).collect();
                BodyRule::Json(Fields { params, pass: pass_body, pass_others: others_body })
            }
            (true, false, Some(BodyFormat::Form)) => {
                let pass = pass_body.into_iter().map(|path| vec![path.join(".")]).collect();
                BodyRule::Form(Fields { params: one(table.body), pass, pass_others: others_body })
            }
        };
        if method == Method::GET && !matches!(body, BodyRule::Nothing) {
            return Err("a GET has no body that servers agree about".into());
        }
        let websocket = websocket(&method, table.websocket, table.subprotocols)?;
        let route = Self {
            offer: offer.name,
            method,
            path,
            params: offer.params,
            query,
            headers,
            pass_headers,
            body,
            opaque_answers: table.opaque_answers,
            websocket,
        };
        route.check_places()?;
        Ok(route)
    }

    /// Whether a name that would go along unseen could be read as one that policy sees, by a server that folds case, takes
    /// `orderId`, `order-id` or `order id` for `order_id`, `name[]` for a list, or fields of query and body for one set; or
    /// as the method.
    pub(crate) fn resembles(&self, name: &str) -> bool {
        let in_body = match &self.body {
            BodyRule::Json(fields) | BodyRule::Form(fields) => Some(fields),
            BodyRule::Nothing | BodyRule::Anything => None,
        };
        let asked = readings(name);
        let mut seen = self.query.params.keys().chain(in_body.into_iter().flat_map(|fields| fields.params.keys()));
        // What lies within a field that is respelt would be taken for what lies within the field.
        let begins = |path: &Vec<String>| {
            let heads = (1..=path.len()).filter_map(|some| path.get(..some));
            heads.map(|head| readings(&head.join("."))).any(|head| meet(&head, &asked))
        };
        asked.iter().any(|name| METHOD_FIELDS.contains(&&**name)) || seen.any(begins)
    }

    /// Each parameter stands in one place, each place is of a parameter, and can hold its type.
    fn check_places(&self) -> Result<(), String> {
        let in_body = match &self.body {
            BodyRule::Json(fields) | BodyRule::Form(fields) => Some(fields),
            BodyRule::Nothing | BodyRule::Anything => None,
        };
        let mut places: Vec<&str> = self.path.params().collect();
        places.extend(self.query.params.values().map(String::as_str));
        places.extend(self.headers.values().map(String::as_str));
        places.extend(in_body.into_iter().flat_map(|fields| fields.params.values().map(String::as_str)));
        for name in &places {
            if !self.params.contains_key(*name) {
                return Err(format!("`{name}` stands in the request but is none of its `params`"));
            }
            if places.iter().filter(|other| other == &name).count() > 1 {
                return Err(format!("parameter `{name}` stands in two places"));
            }
        }
        if let Some(name) = self.params.keys().find(|name| !places.contains(&name.as_str())) {
            return Err(format!(
                "parameter `{name}` stands nowhere in the request: put it into `path`, `query`, `headers` or `body`"
            ));
        }
        for name in self.path.params().chain(self.headers.values().map(String::as_str)) {
            if self.params.get(name).is_some_and(|param| param.kind == ParamType::Texts) {
                return Err(format!("parameter `{name}` is a set, which neither a path nor a header can hold"));
            }
        }
        if let Some(fields) = in_body {
            let paths: Vec<_> = fields.params.keys().chain(&fields.pass).collect();
            let within = |one: &Vec<String>| paths.iter().any(|other| other.len() < one.len() && one.starts_with(other));
            if let Some(path) = paths.iter().find(|path| within(path)) {
                return Err(format!("`{}` lies within a field that is read or passed as a whole", path.join(".")));
            }
        }
        Ok(())
    }
}

/// Fields that frameworks take for the method of a request, as [`plain`] gives them.
const METHOD_FIELDS: [&str; 4] = ["_method", "xhttpmethodoverride", "xhttpmethod", "xmethodoverride"];

/// Whether some server could take the one name for the other.
pub(super) fn alike(one: &str, other: &str) -> bool {
    meet(&readings(one), &readings(other))
}

fn meet(some: &[String; 3], others: &[String; 3]) -> bool {
    some.iter().any(|name| !name.is_empty() && others.contains(name))
}

/// What servers take brackets in a name for: what follows them is an index (`name[0]`), they are not closed and read as
/// another character (`na[me` in PHP), or nothing stands before them (`[name]` in JavaScript's `qs`).
fn readings(name: &str) -> [String; 3] {
    let brackets = ['[', ']'];
    let inner = name.trim().trim_start_matches(brackets);
    let head = |name: &str| plain(name.split(brackets).next().unwrap_or_default());
    [head(name.trim()), head(inner), plain(&name.replace(brackets, ""))]
}

/// A name of a field without brackets as the most lenient server reads it. Letters are folded both ways: `\u{17f}` is an `s` and `\u{212a}` a `k`
/// for servers that fold Unicode.
fn plain(name: &str) -> String {
    let name = name.trim();
    let inner = name.trim_start_matches('_');
    let begin = name.len() - inner.len();
    let kept = |letter: &char| !(matches!(letter, '_' | '-' | '.') || letter.is_whitespace() || letter.is_control());
    "_".repeat(begin) + &inner.chars().filter(kept).collect::<String>().to_uppercase().to_lowercase()
}

fn method(text: &str) -> Result<Method, String> {
    match text {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => text.parse().map_err(|_| "no method".to_owned()),
        _ => Err(format!("`{text}` is no method of a route; use GET, HEAD, POST, PUT, PATCH or DELETE")),
    }
}

fn websocket(method: &Method, is_one: bool, subprotocols: Vec<String>) -> Result<Option<Vec<String>>, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if let Some(word) = subprotocols.iter().find(|word| word.is_empty() || !word.bytes().all(token)) {
        return Err(format!("`{word}` is no name of a subprotocol"));
    }
    match is_one {
        true if method != Method::GET => Err("a WebSocket is opened by GET".to_owned()),
        false if !subprotocols.is_empty() => {
            Err("`subprotocols` are of a WebSocket: write `websocket = true` as well".to_owned())
        }
        _ => Ok(is_one.then_some(subprotocols)),
    }
}

fn own_header(name: &str) -> Result<HeaderName, String> {
    let header = header(name)?;
    if header == http::header::AUTHORIZATION || header == http::header::COOKIE || header == http::header::PROXY_AUTHORIZATION {
        return Err(format!("header `{header}` carries credentials, which come from the gateway alone"));
    }
    Ok(header)
}

fn dotted(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// What a route lets through unseen.
#[derive(Default)]
struct Passed {
    query: BTreeSet<Vec<String>>,
    others_query: bool,
    headers: HashSet<HeaderName>,
    body: BTreeSet<Vec<String>>,
    others_body: bool,
    anything: bool,
}

impl Passed {
    fn read(list: &[String]) -> Result<Self, String> {
        let mut passed = Self::default();
        for entry in list {
            match entry.split_once('.') {
                None if entry == "body" => passed.anything = true,
                Some(("query", "*")) => passed.others_query = true,
                Some(("body", "*")) => passed.others_body = true,
                Some(("query", field)) if !field.is_empty() => drop(passed.query.insert(vec![field.to_owned()])),
                Some(("header", name)) => drop(passed.headers.insert(own_header(name)?)),
                Some(("body", path)) if !path.is_empty() => drop(passed.body.insert(dotted(path))),
                _ => {
                    return Err(format!(
                        "`{entry}` in `pass`: write `query.NAME`, `header.NAME`, `body.PATH`, `query.*`, `body.*` or `body`"
                    ));
                }
            }
        }
        Ok(passed)
    }
}

/// Routes of which nobody could say which one a request means.
pub(super) fn ambiguities(routes: &[Route]) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    for (at, one) in routes.iter().enumerate() {
        for two in routes.iter().skip(at + 1) {
            let alike = one.path.rank() == two.path.rank();
            if one.method == two.method && alike && one.path.overlaps(&two.path) {
                let fault = format!("some paths match route `{}` as well, and neither is more exact", one.offer);
                faults.push(ConfigFault::Route { route: two.offer.clone(), fault });
            }
        }
    }
    faults
}
