"""`engine checklist`: is everything done and proven before the engines go on the vehicle?"""
