# What the administrator of the account did; prints the key of the broker. From its last call on, everybody must sign.
import boto3, json, sys, urllib.request
url = sys.argv[1]
def client(name):
    return boto3.client(name, endpoint_url=url, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
def policy(effect, action, resource, **more):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]})
iam, s3 = client("iam"), client("s3")
iam.create_user(UserName="writ")
may = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity", "iam:GetPolicy", "iam:GetPolicyVersion",
       "iam:ListPolicyVersions", "iam:CreatePolicyVersion", "iam:DeletePolicyVersion"]
iam.put_user_policy(UserName="writ", PolicyName="may", PolicyDocument=policy("Allow", may, "*"))
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/writ"},
         "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]}]}
iam.create_role(RoleName="reports-reader", Path="/jit/", AssumeRolePolicyDocument=json.dumps(trust))
iam.put_role_policy(RoleName="reports-reader", PolicyName="may", PolicyDocument=policy("Allow", "s3:GetObject", "arn:aws:s3:::reports/*"))
iam.create_policy(PolicyName="WritDenied", PolicyDocument=policy("Deny", "*", "*", Condition={"StringLike": {"aws:userid": ["*:lease-none"]}}))
for bucket in ["reports", "secrets"]:
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket=bucket, Key="2026/q3/a", Body=b"the report")
key = iam.create_access_key(UserName="writ")["AccessKey"]
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", headers={"content-type": "text/plain"}))
print(key["AccessKeyId"], key["SecretAccessKey"])
