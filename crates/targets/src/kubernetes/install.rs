//! The manifest that a cluster's administrator applies once: a namespace that holds only accounts of tasks, and for our
//! own account the right to make those, and to bind exactly the roles that the offers name (`bind`, by name). RBAC cannot say
//! to whom, and lets everybody bind what they hold themselves: a ValidatingAdmissionPolicy (Kubernetes 1.30) says the rest.

use super::{BROKER, PREFIX, Template};
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
    policy(&mut text, accounts, templates);
    text
}

/// What our account does at all is for a task: no name but those of tasks, no role but those of offers, no subject but the
/// task's own account. It is about our account alone; nobody else is looked at.
fn policy(text: &mut String, accounts: &str, templates: &[Template]) {
    let kind = |template: &Template| if template.cluster_role { "ClusterRole" } else { "Role" };
    // None of these words can hold a quote or a slash.
    let offered: BTreeSet<_> = templates.iter().map(|one| format!("'{}/{}/{}'", one.namespace, kind(one), one.role)).collect();
    let offered = offered.into_iter().collect::<Vec<_>>().join(", ");
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n\
         metadata:\n  name: {accounts}-broker\n\
         spec:\n  failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n\
         \x20   - {{ apiGroups: [{RBAC}], apiVersions: [\"*\"], operations: [\"*\"], resources: [\"*\"] }}\n\
         \x20   - {{ apiGroups: [\"\"], apiVersions: [\"*\"], operations: [\"*\"], resources: [serviceaccounts, serviceaccounts/token] }}\n\
         \x20 matchConditions:\n  - name: by-the-broker\n\
         \x20   expression: request.userInfo.username == 'system:serviceaccount:{accounts}-broker:writ'\n\
         \x20 validations:\n\
         \x20 - expression: >-\n\
         \x20     request.resource.resource in ['rolebindings', 'serviceaccounts'] && request.name.matches('^{PREFIX}[0-9a-f]{{32}}$')\n\
         \x20   message: the broker touches nothing but accounts and bindings of tasks\n    reason: Forbidden\n\
         \x20 - expression: >-\n\
         \x20     request.resource.resource != 'rolebindings' || request.operation == 'DELETE' ||\n\
         \x20     (request.namespace + '/' + object.roleRef.kind + '/' + object.roleRef.name) in [{offered}]\n\
         \x20   message: the broker binds only the roles of its offers\n    reason: Forbidden\n\
         \x20 - expression: >-\n\
         \x20     request.resource.resource != 'rolebindings' || request.operation == 'DELETE' ||\n\
         \x20     object.subjects.map(who, who.kind + '/' + who.namespace + '/' + who.name) ==\n\
         \x20     ['ServiceAccount/{accounts}/' + request.name]\n\
         \x20   message: the broker binds roles only to accounts of tasks\n    reason: Forbidden\n\
         ---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\n\
         metadata:\n  name: {accounts}-broker\nspec: {{ policyName: {accounts}-broker, validationActions: [Deny] }}\n"
    );
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
