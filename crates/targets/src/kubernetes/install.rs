//! The manifest that a cluster's administrator applies once: a namespace that holds only accounts of tasks, and for our
//! own account the right to make those, and to bind exactly the roles that the offers name (`bind`, by name).

use super::{BROKER, Template};
use std::collections::BTreeSet;
use std::fmt::Write;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn manifest(accounts: &str, templates: &[Template]) -> String {
    let mut text = format!(
        "# The broker `writ` in namespace `{accounts}`. Nothing else may have accounts there: who may ask for tokens in a\n\
         # namespace may ask for the token of every account in it.\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {accounts}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {accounts}-broker\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: writ\n  namespace: {accounts}-broker\n"
    );
    role(
        &mut text,
        accounts,
        &[("\"\"", "serviceaccounts", "create, get, list, delete", None), ("\"\"", "serviceaccounts/token", "create", None)],
    );
    binding(&mut text, accounts, accounts);
    let namespaces: BTreeSet<_> = templates.iter().map(|template| template.namespace.as_str()).collect();
    for namespace in namespaces {
        let here = templates.iter().filter(|template| template.namespace == namespace);
        let (cluster_roles, roles): (BTreeSet<_>, BTreeSet<_>) =
            here.fold(Default::default(), |(mut wide, mut own), template| {
                if template.cluster_role {
                    wide.insert(template.role.as_str())
                } else {
                    own.insert(template.role.as_str())
                };
                (wide, own)
            });
        let names = |roles: &BTreeSet<&str>| roles.iter().copied().collect::<Vec<_>>().join(", ");
        let mut rules = vec![(RBAC, "rolebindings", "create, get, list, delete", None)];
        rules.extend((!roles.is_empty()).then(|| (RBAC, "roles", "bind", Some(names(&roles)))));
        rules.extend((!cluster_roles.is_empty()).then(|| (RBAC, "clusterroles", "bind", Some(names(&cluster_roles)))));
        role(&mut text, namespace, &rules);
        binding(&mut text, namespace, accounts);
    }
    text
}

/// A rule: API group, resource, verbs, and the only names that it is for.
type Rule<'a> = (&'a str, &'a str, &'a str, Option<String>);

fn role(text: &mut String, namespace: &str, rules: &[Rule<'_>]) {
    // Writing to a `String` cannot fail.
    let _ =
        write!(text, "---\napiVersion: {RBAC}/v1\nkind: Role\nmetadata:\n  name: {BROKER}\n  namespace: {namespace}\nrules:\n");
    for (group, resource, verbs, names) in rules {
        let names = names.as_ref().map(|names| format!(", resourceNames: [{names}]")).unwrap_or_default();
        let _ = writeln!(text, "- {{ apiGroups: [{group}], resources: [{resource}], verbs: [{verbs}]{names} }}");
    }
}

fn binding(text: &mut String, namespace: &str, accounts: &str) {
    let _ = write!(
        text,
        "---\napiVersion: {RBAC}/v1\nkind: RoleBinding\nmetadata:\n  name: {BROKER}\n  namespace: {namespace}\n\
         roleRef: {{ apiGroup: {RBAC}, kind: Role, name: {BROKER} }}\n\
         subjects:\n- {{ kind: ServiceAccount, name: writ, namespace: {accounts}-broker }}\n"
    );
}
